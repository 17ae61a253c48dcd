// SPDX-License-Identifier: Apache-2.0
//! Creates files and directories so that they survive a power loss, and measures the free space of their disk.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Mode of a new file: accessible to its owner only.
pub const FILE_MODE: u32 = 0o600;
/// Mode of a new directory: accessible to its owner only.
const DIRECTORY_MODE: u32 = 0o700;

/// Copies the tail of `file` from `valid` on to `<path>.torn`, synced before this returns, because the caller cuts
/// the tail next. If the disk is full the tail is dropped: nobody was promised it.
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
        Err(error) if crate::error::is_full(&error) => {
            tracing::warn!(path = %path.display(), %error, "torn tail not kept");
            fs::remove_file(&name)
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        }
        kept => kept,
    }
}

/// Creates a directory and its missing parents, accessible to their owner only. All are on disk when this returns: a
/// synced file is worth nothing in a directory that a power loss takes away.
///
/// # Errors
/// If it cannot be made, or is there and somebody else may write to it, who could then replace every file in it. Of the
/// directories above it nothing is asked, and root may use anybody's.
pub fn create_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    missing.into_iter().try_for_each(sync_directory)?;
    let found = fs::metadata(path)?;
    let (mode, owner, user) = (found.mode() & 0o7777, found.uid(), rustix::process::geteuid().as_raw());
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if mode & 0o022 != 0 {
        return refused(format!("it has mode {mode:03o}: must be writable by its owner only (chmod go-w)"));
    }
    if owner != user && owner != 0 && user != 0 {
        return refused(format!(
            "it belongs to user {owner}: must belong to user {user}, who runs this, or to root"
        ));
    }
    Ok(())
}

/// Syncs the parent directory of `path`, so that a file created or renamed there survives.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Replaces the file at `path`, or creates it, accessible to its owner only. Whatever happens, the old or the new
/// content is there as a whole; the new one is on disk when this returns.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_directory(path)
}

/// Bytes that an unprivileged process can still write to the disk that holds `path`.
///
/// # Errors
/// If the path does not exist or the file system does not tell.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
