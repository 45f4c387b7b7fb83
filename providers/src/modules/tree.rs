//! The files of a module, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Fault, Refused};

/// Bytes that all files of a module have together at most.
pub const LARGEST: usize = 8 * 1024 * 1024;

/// Files that a module has at most.
pub const MOST_FILES: usize = 1_000;

/// Directories that may lie in each other.
const DEEPEST: usize = 12;

/// Characters of a path.
const LONGEST: usize = 200;

/// Directories that programs make for themselves: nothing in them is part of a module.
const LEFT_OUT: &[&str] = &[".git", ".terraform"];

/// Plain files by their paths: relative, with `/`, and none of them leads out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<String, Vec<u8>>,
    directories: BTreeSet<String>,
    size: usize,
}

impl Tree {
    /// Files with their paths, by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, contents)| (path.as_str(), contents.as_slice()))
    }

    /// What lies directly in a directory; an empty text is the uppermost one.
    pub fn within<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.files().filter_map(move |(path, contents)| {
            let name = if directory.is_empty() { path } else { path.strip_prefix(directory)?.strip_prefix('/')? };
            (!name.contains('/')).then_some((name, contents))
        })
    }

    /// Whether there is such a directory.
    #[must_use]
    pub fn has_directory(&self, directory: &str) -> bool {
        directory.is_empty() || self.directories.contains(directory)
    }

    /// The uppermost directory that has more in it than one other directory: programs that write archives put one around
    /// everything.
    #[must_use]
    pub fn top(&self) -> String {
        let mut top = String::new();
        loop {
            let inside = |path: &&String| top.is_empty() || path.starts_with(&format!("{top}/"));
            let depth = if top.is_empty() { 0 } else { top.split('/').count() };
            let below: BTreeSet<&str> =
                self.files.keys().filter(inside).filter_map(|path| path.split('/').nth(depth)).collect();
            let has_file = self.within(&top).next().is_some();
            match below.first() {
                Some(only) if below.len() == 1 && !has_file => {
                    top = if top.is_empty() { (*only).to_owned() } else { format!("{top}/{only}") };
                }
                _ => return top,
            }
        }
    }

    /// Bytes all files have.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Files there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Bytes that there is room for.
    #[must_use]
    pub const fn room(&self) -> usize {
        LARGEST - self.size
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When its path leads out or is taken, or there is no room for it.
    pub fn add(&mut self, path: &str, contents: Vec<u8>) -> Result<(), Refused> {
        let Some(path) = taken(path)? else { return Ok(()) };
        if self.files.len() == MOST_FILES {
            let said = format!("there are more than {MOST_FILES} files in it");
            return Err(Refused::new(Fault::ArchiveTooLarge, said));
        }
        if contents.len() > self.room() {
            let said = format!("what is in it has more than {LARGEST} bytes");
            return Err(Refused::new(Fault::ArchiveTooLarge, said));
        }
        if self.files.contains_key(&path) || self.directories.contains(&path) {
            return Err(Refused::new(Fault::ArchiveUnsafe, format!("{path} is there twice")));
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above)?;
        }
        self.size += contents.len();
        self.files.insert(path, contents);
        Ok(())
    }

    /// Adds a directory, with those above it.
    ///
    /// # Errors
    /// When its path leads out, or is that of a file.
    pub fn directory(&mut self, path: &str) -> Result<(), Refused> {
        let Some(path) = taken(path)? else { return Ok(()) };
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let above = path.get(..at).unwrap_or_default();
            if self.files.contains_key(above) {
                return Err(Refused::new(Fault::ArchiveUnsafe, format!("{above} is a file and a directory")));
            }
            if self.directories.len() < MOST_FILES * 4 {
                self.directories.insert(above.to_owned());
            }
        }
        Ok(())
    }

    /// Writes all files below a directory, which is there and empty.
    ///
    /// # Errors
    /// When that does not work.
    pub fn write(&self, below: &Path) -> std::io::Result<()> {
        for directory in &self.directories {
            std::fs::create_dir_all(below.join(directory))?;
        }
        for (path, contents) in &self.files {
            std::fs::write(below.join(path), contents)?;
        }
        Ok(())
    }
}

/// The path as it is kept; `None`: it is part of no module.
fn taken(path: &str) -> Result<Option<String>, Refused> {
    let refused = |why: &str| Refused::new(Fault::ArchiveUnsafe, format!("{path:?} {why}"));
    if path.len() > LONGEST {
        let short: String = path.chars().take(40).collect();
        return Err(Refused::new(Fault::ArchiveUnsafe, format!("{short:?}… is longer than {LONGEST} characters")));
    }
    if path.starts_with('/') {
        return Err(refused("is an absolute path"));
    }
    if path.chars().any(|it| it.is_control() || it == '\\' || it == ':') {
        return Err(refused("has a character in it that not every system takes for one of a name"));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(refused("leads out of the archive")),
            "~" => return Err(refused("is somebody's directory")),
            part => parts.push(part),
        }
    }
    if parts.iter().any(|part| LEFT_OUT.contains(part)) || parts.is_empty() {
        return Ok(None);
    }
    if parts.len() > DEEPEST {
        return Err(refused("lies too deep"));
    }
    Ok(Some(parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_that_is_put_around_everything_is_found() {
        let mut tree = Tree::default();
        tree.add("web-1.2.0/README.md", Vec::new()).unwrap();
        tree.add("web-1.2.0/net/main.tf", Vec::new()).unwrap();
        assert_eq!(tree.top(), "web-1.2.0");
        let names = |tree: &Tree, at: &str| tree.within(at).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&tree, "web-1.2.0"), ["README.md"]);
        assert_eq!(names(&tree, "web-1.2.0/net"), ["main.tf"]);
        assert!(tree.has_directory("web-1.2.0/net") && !tree.has_directory("web"));
        tree.add("LICENSE", Vec::new()).unwrap();
        assert_eq!(tree.top(), "");
    }

    #[test]
    fn what_was_read_is_written_as_it_was() {
        let mut tree = Tree::default();
        tree.add("a/b/c.tf", b"x".to_vec()).unwrap();
        tree.directory("empty").unwrap();
        let folder = tempfile::tempdir().unwrap();
        tree.write(folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("a/b/c.tf")).unwrap(), b"x");
        assert!(folder.path().join("empty").is_dir());
    }
}
