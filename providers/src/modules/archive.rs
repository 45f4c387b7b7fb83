//! Archives that strangers send: read entry by entry into memory, within bounds, and never unpacked by a program that
//! follows what they say. What is no plain file or directory inside of the archive refuses all of it.

use std::io::{Cursor, Read};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::tree::{LARGEST, MOST_FILES, Tree};
use super::{Fault, Refused};

/// Bytes an archive has at most.
pub const LARGEST_ARCHIVE: usize = 1024 * 1024;

/// Entries that are looked at, directories and what is left out among them.
const MOST_ENTRIES: usize = 4 * MOST_FILES;

/// Bytes that are unpacked at most: files, and what stands between them.
const MOST_UNPACKED: u64 = 2 * LARGEST as u64;

/// Reads a `.tar.gz` or a `.zip`.
///
/// # Errors
/// When it is neither, too large, or has something in it that is not taken.
pub fn read(archive: &[u8]) -> Result<Tree, Refused> {
    if archive.len() > LARGEST_ARCHIVE {
        let said = format!("the archive has {} bytes, and {LARGEST_ARCHIVE} are taken", archive.len());
        return Err(Refused::new(Fault::ArchiveTooLarge, said));
    }
    match archive {
        [0x1f, 0x8b, ..] => tar(MultiGzDecoder::new(archive)),
        [b'P', b'K', 3 | 5, ..] => zip(archive),
        _ => Err(malformed("it begins neither as a .tar.gz nor as a .zip does")),
    }
}

fn malformed(why: impl std::fmt::Display) -> Refused {
    Refused::new(Fault::ArchiveMalformed, format!("the archive cannot be read: {why}"))
}

fn not_taken(name: &str, what: &str) -> Refused {
    Refused::new(
        Fault::ArchiveUnsafe,
        format!("{name} is {what}; plain files and directories are taken, and nothing else"),
    )
}

/// Reads a `.tar`, as `git archive` writes it.
///
/// # Errors
/// As [`read`].
pub fn tar(from: impl Read) -> Result<Tree, Refused> {
    let mut tree = Tree::default();
    // Whoever reads past the bound is told that it ends there, and that it does not is found out afterwards.
    let mut archive = tar::Archive::new(from.take(MOST_UNPACKED));
    let mut seen = 0;
    for entry in archive.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        seen += 1;
        if seen > MOST_ENTRIES {
            return Err(too_many());
        }
        let name = entry.path_bytes().into_owned();
        let name = text(&name)?;
        match entry.header().entry_type() {
            // What `git archive` says of the commit.
            EntryType::XGlobalHeader => {}
            EntryType::Directory => tree.directory(name)?,
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                let contents = contents(&mut entry, name, tree.room())?;
                if contents.len() as u64 != size {
                    return Err(malformed(format!("{name} is cut off")));
                }
                tree.add(name, contents)?;
            }
            EntryType::Symlink => return Err(not_taken(name, "a symbolic link")),
            EntryType::Link => return Err(not_taken(name, "a hard link")),
            EntryType::Char | EntryType::Block | EntryType::Fifo => return Err(not_taken(name, "a device")),
            _ => return Err(not_taken(name, "something that is unknown here")),
        }
    }
    if archive.into_inner().limit() == 0 {
        return Err(too_large());
    }
    Ok(tree)
}

fn zip(archive: &[u8]) -> Result<Tree, Refused> {
    let mut tree = Tree::default();
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).map_err(malformed)?;
    if archive.has_duplicate_names() {
        return Err(Refused::new(Fault::ArchiveUnsafe, "a name is there twice in the archive".to_owned()));
    }
    if archive.len() > MOST_ENTRIES {
        return Err(too_many());
    }
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(malformed)?;
        let name = entry.name_raw().to_vec();
        let name = text(&name)?;
        // The kind of file, where the archive was written on a system that has some.
        match entry.unix_mode().unwrap_or_default() & 0o170_000 {
            0 | 0o100_000 if entry.is_dir() => tree.directory(name)?,
            0o040_000 => tree.directory(name)?,
            0 | 0o100_000 => {
                let contents = contents(&mut entry, name, tree.room())?;
                tree.add(name, contents)?;
            }
            0o120_000 => return Err(not_taken(name, "a symbolic link")),
            _ => return Err(not_taken(name, "a device")),
        }
    }
    Ok(tree)
}

fn text(name: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(name).map_err(|_| {
        let said = format!("{} is no name in UTF-8", String::from_utf8_lossy(name));
        Refused::new(Fault::ArchiveUnsafe, said)
    })
}

/// What is in a file, as far as there is room for it.
fn contents(from: &mut impl Read, name: &str, room: usize) -> Result<Vec<u8>, Refused> {
    let mut contents = Vec::new();
    let read = from.take(room as u64 + 1).read_to_end(&mut contents);
    read.map_err(|error| malformed(format!("{name}: {error}")))?;
    if contents.len() > room { Err(too_large()) } else { Ok(contents) }
}

fn too_large() -> Refused {
    let said = format!("what is in it has more than {LARGEST} bytes");
    Refused::new(Fault::ArchiveTooLarge, said)
}

fn too_many() -> Refused {
    Refused::new(Fault::ArchiveTooLarge, format!("there are more than {MOST_FILES} files in it"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn packed(tar: Vec<u8>) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&tar).unwrap();
        packer.finish().unwrap()
    }

    /// An entry with any name: programs that write archives refuse most of these.
    fn entry(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &[u8], contents: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_entry_type(kind);
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.as_ustar_mut().unwrap().linkname[..4].copy_from_slice(b"/etc");
        header.set_cksum();
        builder.append(&header, contents).unwrap();
    }

    fn tarred(entries: &[(EntryType, &[u8], &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, contents) in entries {
            entry(&mut builder, *kind, name, contents);
        }
        packed(builder.into_inner().unwrap())
    }

    fn zipped(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, contents) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(contents.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn fault(archive: &[u8]) -> Fault {
        read(archive).unwrap_err().fault
    }

    #[test]
    fn what_is_in_both_kinds_of_archive_is_read() {
        let tarred = tarred(&[
            (EntryType::XGlobalHeader, b"pax_global_header", b""),
            (EntryType::Directory, b"./web/", b""),
            (EntryType::Regular, b"./web/main.tf", b"# a"),
            (EntryType::Regular, b"web/.terraform/x", b"left out"),
        ]);
        let zipped = zipped(&[("web/main.tf", "# a"), (".git/config", "left out")]);
        for archive in [tarred, zipped] {
            let tree = read(&archive).unwrap();
            let files: Vec<_> = tree.files().collect();
            assert_eq!(files, [("web/main.tf", b"# a".as_slice())]);
        }
    }

    #[test]
    fn whatever_would_lead_out_of_it_refuses_the_archive() {
        for name in ["../x", "a/../../x", "/etc/passwd", "a/..", "..", "a\\..\\x", "C:/x", "a/\u{7}b", "~/x"] {
            let tarred = tarred(&[(EntryType::Regular, b"main.tf", b""), (EntryType::Regular, name.as_bytes(), b"")]);
            assert_eq!(fault(&tarred), Fault::ArchiveUnsafe, "{name} in a .tar.gz");
            assert_eq!(fault(&zipped(&[("main.tf", ""), (name, "")])), Fault::ArchiveUnsafe, "{name} in a .zip");
        }
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo] {
            assert_eq!(fault(&tarred(&[(kind, b"main.tf", b"")])), Fault::ArchiveUnsafe, "{kind:?}");
        }
        assert_eq!(fault(&tarred(&[(EntryType::Regular, b"\xff\xfe.tf", b"")])), Fault::ArchiveUnsafe);
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink("main.tf", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        assert_eq!(fault(&writer.finish().unwrap().into_inner()), Fault::ArchiveUnsafe);
    }

    #[test]
    fn a_name_that_is_there_twice_or_is_a_file_and_a_directory_refuses_it() {
        let twice = tarred(&[(EntryType::Regular, b"a", b"1"), (EntryType::Regular, b"./a", b"2")]);
        assert_eq!(fault(&twice), Fault::ArchiveUnsafe);
        for names in [["a", "a/b"], ["a/b", "a"]] {
            let both = names.map(|name| (EntryType::Regular, name.as_bytes(), b"".as_slice()));
            assert_eq!(fault(&tarred(&both)), Fault::ArchiveUnsafe, "{names:?}");
        }
        // Two entries of one name, as no program writes them: the second is renamed where it is written.
        let mut bytes = zipped(&[("a.tf", ""), ("b.tf", "")]);
        while let Some(at) = bytes.windows(4).position(|part| part == b"b.tf") {
            bytes[at] = b'a';
        }
        assert_eq!(fault(&bytes), Fault::ArchiveUnsafe);
    }

    #[test]
    fn bombs_and_crowds_are_refused() {
        let zeros = vec![0; LARGEST + 1];
        assert_eq!(fault(&tarred(&[(EntryType::Regular, b"a", &zeros)])), Fault::ArchiveTooLarge);
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file("a", SimpleFileOptions::default()).unwrap();
        writer.write_all(&zeros).unwrap();
        assert_eq!(fault(&writer.finish().unwrap().into_inner()), Fault::ArchiveTooLarge);
        let mut builder = tar::Builder::new(Vec::new());
        for number in 0..=MOST_FILES {
            entry(&mut builder, EntryType::Regular, format!("f{number}").as_bytes(), b"");
        }
        assert_eq!(fault(&packed(builder.into_inner().unwrap())), Fault::ArchiveTooLarge);
        assert_eq!(fault(&tarred(&[(EntryType::Regular, "d/".repeat(40).as_bytes(), b"")])), Fault::ArchiveUnsafe);
        assert_eq!(fault(&vec![0x1f; LARGEST_ARCHIVE + 1]), Fault::ArchiveTooLarge);
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let whole = tarred(&[(EntryType::Regular, b"main.tf", &[b'x'; 2000])]);
        for bytes in [&b""[..], b"main.tf", b"\x1f\x8bgarbage", b"PK\x03\x04garbage", &whole[..whole.len() / 2]] {
            assert_eq!(fault(bytes), Fault::ArchiveMalformed);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_ends_in_a_panic(bytes: Vec<u8>, head in 0_usize..3) {
            let head: &[u8] = [&b"\x1f\x8b\x08"[..], b"PK\x03\x04", b"PK\x05\x06"][head];
            drop(read(&[head, &bytes].concat()));
            drop(tar(&bytes[..]));
        }
    }
}
