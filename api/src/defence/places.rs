//! Where addresses are, from a file in MaxMind's format that the operator keeps up to date. Nothing is asked of anybody.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use gantry_schema::defence::Country;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;
use tracing::{info, warn};

/// How often it is looked whether there is another file.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How far off a place is of which the file does not say it.
const UNSAID_RADIUS_KM: f64 = 100.0;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// It is not there, or may not be read.
    #[error("the file cannot be read")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("the file is none in MaxMind's format")]
    Format(#[from] MaxMindDbError),
}

/// Where addresses are. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    path: Option<PathBuf>,
    file: RwLock<Option<Arc<File>>>,
}

struct File {
    reader: Reader<Vec<u8>>,
    /// When it was written, and how long it was: another one differs in one of them.
    version: (SystemTime, u64),
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Where an address is, as far as the file says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub country: Option<Country>,
    pub city: Option<String>,
    /// Degrees north and east, and how far off that may be in kilometres.
    pub spot: Option<(f64, f64, f64)>,
}

/// Of the records of city and country files, and of those that have but a country.
#[derive(Deserialize)]
struct Record {
    country: Option<Named>,
    registered_country: Option<Named>,
    city: Option<Named>,
    location: Option<Location>,
    country_code: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    iso_code: Option<String>,
    names: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
    accuracy_radius: Option<u16>,
}

impl Places {
    /// Those of a file.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PlacesError> {
        let places = Self(Arc::new(Inner { path: Some(path.into()), file: RwLock::default() }));
        places.look()?;
        Ok(places)
    }

    /// Whether there is a file.
    pub(crate) fn are_known(&self) -> bool {
        self.0.path.is_some()
    }

    /// Reads the file if it is another one than before.
    ///
    /// # Errors
    /// When it cannot be used; the one before still is.
    pub fn look(&self) -> Result<bool, PlacesError> {
        let Some(path) = &self.0.path else { return Ok(false) };
        let about = std::fs::metadata(path)?;
        let version = (about.modified()?, about.len());
        if self.file().is_some_and(|file| file.version == version) {
            return Ok(false);
        }
        let reader = Reader::from_source(std::fs::read(path)?)?;
        let file = Arc::new(File { reader, version });
        *self.0.file.write().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(true)
    }

    /// Looks now and then whether there is another file, for good.
    pub async fn watch(self) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        let mut failed = false;
        loop {
            every.tick().await;
            let places = self.clone();
            let looked = tokio::task::spawn_blocking(move || places.look()).await;
            match &looked {
                Ok(Ok(true)) => info!("There is another file of places, it is used from now on"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) if !failed => warn!("The file of places cannot be used, the one before is: {error}"),
                Ok(Err(_)) => {}
                Err(error) => warn!("Nobody looked at the file of places: {error}"),
            }
            failed = matches!(looked, Ok(Err(_)));
        }
    }

    /// Where an address is; `None`: nobody knows.
    pub(crate) fn find(&self, address: IpAddr) -> Option<Place> {
        let file = self.file()?;
        let record: Record = file.reader.lookup(address.to_canonical()).ok()?.decode().ok()??;
        let named = record.country.as_ref().or(record.registered_country.as_ref());
        let code = named.and_then(|country| country.iso_code.as_ref()).or(record.country_code.as_ref());
        let spot = record.location.and_then(|location| {
            let radius = location.accuracy_radius.map_or(UNSAID_RADIUS_KM, f64::from);
            Some((location.latitude?, location.longitude?, radius))
        });
        Some(Place {
            country: code.and_then(|code| code.parse().ok()),
            city: record.city.and_then(|city| city.names?.remove("en")),
            // What a broken file says is nowhere.
            spot: spot.filter(|(north, east, _)| north.abs() <= 90.0 && east.abs() <= 180.0),
        })
    }

    /// In which country an address is; `None`: nobody knows.
    pub(crate) fn country(&self, address: IpAddr) -> Option<Country> {
        self.find(address)?.country
    }

    fn file(&self) -> Option<Arc<File>> {
        self.0.file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
