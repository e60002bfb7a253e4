//! Files that appear under their name whole or not at all.
//!
//! Each is written under a name of its own in the same directory, flushed, and only then given its
//! name. A symlink stays a symlink: the file that it points to is the one that is replaced or
//! created, and the temporary file is beside that one.

use std::fs::{self, File, OpenOptions};
use std::io::{
    self,
    ErrorKind::{AlreadyExists, InvalidInput, NotFound, PermissionDenied, Unsupported},
    Write as _,
};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// As many as Linux follows.
const MAX_SYMLINKS: usize = 40;

/// Replaces a file, or creates it, with this mode (less the umask).
///
/// # Errors
///
/// If the file cannot be written or given its name: the old content is still there. Or if only the
/// directory cannot be synced: the new content is there, but may not survive a crash.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = NewFile::new(path)?;
    new.write(content, mode)?;
    new.replace()
}

/// Creates a file with this mode (less the umask) and returns true, or returns false if there is
/// one already, which is left alone.
///
/// # Errors
///
/// As for [`replace`].
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let new = NewFile::new(path)?;
    new.write(content, mode)?;
    new.create()
}

/// A file under its temporary name. Dropping it removes the file.
pub struct NewFile {
    temporary: PathBuf,
    target: PathBuf,
}

impl NewFile {
    /// Chooses a temporary name; the caller creates the file.
    ///
    /// # Errors
    ///
    /// If `path` cannot be the name of a file, its symlinks cannot be followed, or there is
    /// something else than a regular file, such as a device.
    pub fn new(path: &Path) -> io::Result<Self> {
        let target = follow(path)?;
        if fs::metadata(&target).is_ok_and(|it| !it.is_file()) {
            return Err(io::Error::new(InvalidInput, "it is not a regular file"));
        }
        let mut name = target.file_name().ok_or(InvalidInput)?.to_owned();
        name.push(format!(".{:08x}.new", fastrand::u32(..)));
        Ok(Self { temporary: target.with_file_name(name), target })
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Creates the temporary file, empty and for its owner alone, for a caller that opens it by
    /// its path.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn begin_private(&self) -> io::Result<()> {
        self.write(&[], 0o600)
    }

    /// Creates the temporary file with this content and mode (less the umask), and flushes it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, content: &[u8], mode: u32) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&self.temporary)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn replace(self) -> io::Result<()> {
        let directory = self.directory()?;
        fs::rename(&self.temporary, &self.target)?;
        sync(directory)
    }

    /// Gives the file its name and returns true, or returns false if another file has that name.
    /// The caller has flushed the content.
    ///
    /// # Errors
    ///
    /// If it cannot be given its name, or the directory cannot be synced.
    pub fn create(self) -> io::Result<bool> {
        let directory = self.directory()?;
        match fs::hard_link(&self.temporary, &self.target) {
            Err(error) if error.kind() == AlreadyExists => return Ok(false),
            linked => linked?,
        }
        fs::remove_file(&self.temporary)?;
        sync(directory)?;
        Ok(true)
    }

    /// Opened before anything changes, so that an error leaves everything as it was. `None` if it
    /// cannot be read, and so cannot be synced.
    fn directory(&self) -> io::Result<Option<File>> {
        let parent = self.target.parent().filter(|it| !it.as_os_str().is_empty());
        match File::open(parent.unwrap_or(Path::new("."))) {
            Err(error) if error.kind() == PermissionDenied => Ok(None),
            opened => opened.map(Some),
        }
    }
}

/// Syncs a directory if its file system can do so.
fn sync(directory: Option<File>) -> io::Result<()> {
    match directory.map_or(Ok(()), |it| it.sync_all()) {
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        synced => synced,
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Fails if it has been renamed already, as it usually has.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Whether users other than the owner can read a file.
///
/// # Errors
///
/// If there is no such file, or it cannot be looked at.
pub fn is_public(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o044 != 0)
}

/// The path of a file beside another one, whose name has a suffix more.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Where a path leads once all symlinks in its last part are followed, whether there is a file or
/// not.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_SYMLINKS {
        match fs::read_link(&path) {
            // Relative to the directory that the link is in.
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // Not a link, or nothing at all.
            Err(error) if matches!(error.kind(), InvalidInput | NotFound) => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

#[cfg(test)]
pub(crate) mod tests;
