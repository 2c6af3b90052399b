//! The state directory: its making, its file system, the identity of its files, and the ballast.

use super::error::OpenError;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Which file a path leads to: deleted and made anew it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of the file at `path`; `None` if there is none. It is not opened: closing a descriptor would drop the
    /// locks that SQLite holds in this process.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::from(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Of an open file.
    pub(super) fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Makes `dir` if it is not there, readable by its owner only, and refuses file systems that damage databases.
pub(super) fn prepare(dir: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(OpenError::Unwritable {
                dir: dir.to_owned(),
                what: "it is not a directory; name another one in `[state] dir`".to_owned(),
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|error| unwritable(dir, dir, &error))?;
        }
        Err(error) => return Err(unwritable(dir, dir, &error)),
    }
    match network(dir) {
        Some((name, Harm::Certain)) => Err(OpenError::Unwritable {
            dir: dir.to_owned(),
            what: format!(
                "it is on {name}, which damages databases; name a local directory in `[state] dir`"
            ),
        }),
        Some((name, Harm::Possible)) => {
            tracing::warn!(
                dir = %dir.display(),
                "the state is on {name}: not every such file system keeps a database whole; a local directory is safe"
            );
            Ok(())
        }
        None => Ok(()),
    }
}

/// Refuses state whose parts would lie in two places: SQLite keeps the log beside the file that a link leads to, or beside
/// the name that it was opened by.
pub(super) fn refuse_links(dir: &Path, files: &[PathBuf]) -> Result<(), OpenError> {
    for path in files {
        let Ok(metadata) = std::fs::symlink_metadata(path) else { continue };
        let what = if metadata.is_symlink() {
            "is a link"
        } else if metadata.is_file() && metadata.nlink() > 1 {
            "has a second name (a hard link)"
        } else {
            continue;
        };
        return Err(OpenError::Unwritable {
            dir: dir.to_owned(),
            what: format!(
                "{} {what}, so that the database and its log could come apart: put the file itself there, or name its \
                 directory in `[state] dir`",
                path.display()
            ),
        });
    }
    Ok(())
}

/// Removes what an interrupted copy left.
pub(super) fn remove_stale_copies(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(COPY_PREFIX) {
            let path = entry.path();
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), "failed to remove an unfinished copy: {error}");
            }
        }
    }
}

/// Makes an empty file that only its owner can read, if there is none.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(file) => file.set_permissions(Permissions::from_mode(0o600)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the entries of `dir` last.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Sets space aside that pruning may use when the disk is full (`docs/delivery.md#database-and-disk` D4).
///
/// Does nothing where it is there already, or where space is short.
pub(super) fn set_ballast(dir: &Path) {
    let path = dir.join(BALLAST);
    if path.exists() || free_space(dir).is_none_or(|free| free < BALLAST_LENGTH * 4) {
        return;
    }
    let filled = make_private(&path)
        .and_then(|()| OpenOptions::new().write(true).open(&path))
        .and_then(|file| fill(&file));
    if let Err(error) = filled {
        tracing::debug!("no ballast: {error}");
        let _ = std::fs::remove_file(&path);
    }
}

/// Gives the space up; `false` if there was none.
pub(super) fn drop_ballast(dir: &Path) -> bool {
    let dropped = std::fs::remove_file(dir.join(BALLAST)).is_ok();
    if dropped {
        tracing::warn!("the disk is full: gave up the ballast so that old records can be deleted");
    }
    dropped
}

/// Whether there is too little space for a few ordinary commits.
pub(super) fn is_short_of_space(dir: &Path) -> bool {
    free_space(dir).is_some_and(|free| free < SPACE_FOR_COMMITS)
}

/// The error of a file that cannot be made or written.
pub(super) fn unwritable(dir: &Path, path: &Path, error: &io::Error) -> OpenError {
    let what = if path == dir { error.to_string() } else { format!("{}: {error}", path.display()) };
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; the user that batchd runs as must own the directory and what is in it"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable, or name another one in `[state] dir`",
        _ => "",
    };
    OpenError::Unwritable { dir: dir.to_owned(), what: format!("{what}{hint}") }
}

/// A name for a file beside the database that is removed at the next start if it is still there.
pub(super) fn copy_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{COPY_PREFIX}{}-{number}", std::process::id()))
}

fn fill(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let length = i64::try_from(BALLAST_LENGTH).map_err(io::Error::other)?;
        nix::fcntl::posix_fallocate(file, 0, length)?;
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::io::Write;
        let mut file = file;
        let zeros = [0; 4096];
        for _ in 0..BALLAST_LENGTH / 4096 {
            file.write_all(&zeros)?;
        }
    }
    file.sync_all()
}

/// How many bytes may still be written, if the system says.
pub(super) fn free_space(dir: &Path) -> Option<u64> {
    let space = nix::sys::statvfs::statvfs(dir).ok()?;
    Some(space.blocks_available().saturating_mul(space.fragment_size()))
}

/// What a file system does to a database whose locks and shared memory must work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Certain,
    Possible,
}

/// The network file system that `dir` is on, if it is on one.
#[cfg(target_os = "linux")]
fn network(dir: &Path) -> Option<(&'static str, Harm)> {
    // The magic number has 32 bits; the field that holds it differs from platform to platform.
    let kind = nix::sys::statfs::statfs(dir).ok()?.filesystem_type().0.to_ne_bytes();
    let low = if cfg!(target_endian = "big") { kind.last_chunk() } else { kind.first_chunk() };
    known_network(u32::from_ne_bytes(*low?))
}

#[cfg(not(target_os = "linux"))]
fn network(_dir: &Path) -> Option<(&'static str, Harm)> {
    None
}

fn known_network(magic: u32) -> Option<(&'static str, Harm)> {
    NETWORK.iter().find(|(number, ..)| *number == magic).map(|(_, name, harm)| (*name, *harm))
}

/// The numbers of `statfs(2)`.
const NETWORK: [(u32, &str, Harm); 12] = [
    (0x0000_6969, "NFS", Harm::Certain),
    (0x0000_517B, "SMB", Harm::Certain),
    (0xFF53_4D42, "SMB (CIFS)", Harm::Certain),
    (0xFE53_4D42, "SMB 2", Harm::Certain),
    (0x6573_5546, "FUSE or virtiofs", Harm::Possible),
    (0x0102_1997, "9P", Harm::Possible),
    (0x00C3_6400, "Ceph", Harm::Possible),
    (0x6B41_4653, "AFS", Harm::Possible),
    (0x5346_414F, "AFS", Harm::Possible),
    (0x7375_7245, "Coda", Harm::Possible),
    (0x0000_564C, "NCP", Harm::Possible),
    (0x0BD0_0BD0, "Lustre", Harm::Possible),
];

const COPY_PREFIX: &str = "batchd.copy.";
const BALLAST: &str = "ballast";
const BALLAST_LENGTH: u64 = 4 << 20;
const SPACE_FOR_COMMITS: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_its_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        prepare(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        prepare(&dir).unwrap();
    }

    #[test]
    fn a_file_is_no_directory() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("state");
        std::fs::write(&file, "").unwrap();
        let error = prepare(&file).unwrap_err();
        assert!(matches!(&error, OpenError::Unwritable { what, .. } if what.contains("not a directory")));
    }

    #[test]
    fn only_nfs_and_smb_are_refused() {
        for (magic, ..) in NETWORK {
            let (name, harm) = known_network(magic).unwrap();
            let refused = name == "NFS" || name.starts_with("SMB");
            assert_eq!(harm == Harm::Certain, refused, "{name}");
        }
        // ext4, tmpfs, btrfs, xfs, overlayfs.
        for magic in [0xEF53, 0x0102_1994, 0x9123_683E, 0x5846_5342, 0x794C_7630] {
            assert_eq!(known_network(magic), None);
        }
    }

    #[test]
    fn ballast_is_set_given_up_and_set_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!drop_ballast(dir.path()));
        for _ in 0..2 {
            set_ballast(dir.path());
            set_ballast(dir.path());
            let metadata = std::fs::metadata(dir.path().join(BALLAST)).unwrap();
            assert_eq!(metadata.len(), BALLAST_LENGTH);
            assert!(metadata.blocks() * 512 >= BALLAST_LENGTH, "the space is really taken");
            assert!(drop_ballast(dir.path()));
        }
    }

    #[test]
    fn a_file_made_anew_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(Identity::of(&path).unwrap(), None);
        std::fs::write(&path, "").unwrap();
        let kept = File::open(&path).unwrap();
        assert_eq!(Identity::of(&path).unwrap(), Some(Identity::of_file(&kept).unwrap()));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_ne!(Identity::of(&path).unwrap(), Some(Identity::of_file(&kept).unwrap()));
    }
}
