//! Small files that are there whole or not at all, also after a crash.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// The mode of what everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;
/// The mode of what only its owner may read.
pub(crate) const SECRET: u32 = 0o600;

/// How the name of a file begins that is being written and not yet in place: who is killed then leaves it.
pub const DRAFT: &str = ".ward-draft-";

/// No certificate or request of Ward comes near this many bytes.
const LIMIT: u64 = 64 * 1024;

/// Writes a new file; what stands there already is left alone (`AlreadyExists`).
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    staged(path, bytes, mode)?.persist_noclobber(path).map_err(|refused| refused.error)?;
    sync(folder(path))
}

/// Writes a file in place of what stands there.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    staged(path, bytes, mode)?.persist(path).map_err(|refused| refused.error)?;
    sync(folder(path))
}

/// The text of a small file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    if File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)? as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {LIMIT} bytes")));
    }
    Ok(text)
}

/// Makes a folder and its parents, open to their owner alone where they are new.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    sync(folder(path))
}

/// The bytes in a temporary file of the same folder, on disk and ready to be renamed.
fn staged(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(DRAFT).tempfile_in(folder(path))?;
    // After the fact, since a mode given at creation would be cut by the umask.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new name is on disk only when its folder is.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
