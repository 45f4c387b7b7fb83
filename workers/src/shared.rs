//! What the handlers of a process have in common: one of each type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One value of each type that a handler asked for. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// The value of this type, made when it is first asked for.
    pub fn get<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = Arc::clone(values.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(make())));
        let Ok(value) = value.downcast() else { unreachable!("the key is the type") };
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[test]
    fn there_is_one_of_each_type_for_all_clones() {
        let shared = Shared::default();
        shared.get(|| AtomicU8::new(1)).store(7, Ordering::Relaxed);
        assert_eq!(shared.clone().get(|| AtomicU8::new(1)).load(Ordering::Relaxed), 7);
        assert_eq!(*shared.get(|| 3_u8), 3);
    }
}
