//! Files and directories that stay where they were made, and how much room their disk has.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// Mode of a new file: its owner only.
pub(crate) const FILE_MODE: u32 = 0o600;
/// Mode of a new directory: its owner only.
const DIRECTORY_MODE: u32 = 0o700;

/// Copies what is in `file` from `valid` on to `<path>.torn`; on disk when it returns, as the tail is cut next. A full disk
/// has no room for it: then the tail, which was promised to nobody, is not kept.
pub(super) fn keep_torn(path: &Path, file: &mut File, valid: u64) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".torn");
    file.seek(SeekFrom::Start(valid))?;
    let make = || OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&name);
    let kept = make().and_then(|mut torn| {
        io::copy(file, &mut torn)?;
        torn.sync_all()?;
        sync_directory(path)
    });
    match kept {
        Err(error) if super::is_full(&error) => {
            tracing::warn!(path = %path.display(), %error, "torn tail not kept");
            fs::remove_file(&name)
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        }
        kept => kept,
    }
}

/// Makes a directory, and those above it that are missing, for its owner only. Each is on disk when this returns: what is
/// synced in a directory that a power loss takes away was not kept.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    missing.into_iter().try_for_each(sync_directory)
}

/// Syncs the directory that holds `path`, so that a file created or renamed there stays there.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Bytes that this process may still write to the disk that holds `path`.
///
/// # Errors
/// If the path does not exist or the file system does not tell.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
