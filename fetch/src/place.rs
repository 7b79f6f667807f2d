//! The model directory. It is complete, or it does not exist.

use std::ffi::OsString;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gte_engine::MODEL_FILES;

use crate::content::{self, Content};
use crate::failure::{Failure, Kind};
use crate::published::PublishedFile;

/// The path of the model directory, locked: one process at a time writes there.
pub struct Destination {
    dir: PathBuf,
    parent: PathBuf,
    name: OsString,
    /// The lock is on the parent directory itself, so no lock file stays behind.
    _lock: File,
}

/// Whether `dir` holds every pinned file.
pub fn is_complete(dir: &Path, files: &[PublishedFile]) -> bool {
    files.iter().all(|file| {
        matches!(content::check(&dir.join(&file.name), file, || ()), Ok(Content::Pinned))
    })
}

impl Destination {
    /// Creates the parent directory and locks it; waits while another process holds the lock.
    pub fn open(dir: &Path) -> Result<Destination, Failure> {
        let used = |e| Failure::local("use", dir, &e);
        // Links are resolved, so the rename replaces the target of a link and not the link.
        let dir = match fs::canonicalize(dir) {
            Ok(found) => found,
            Err(_) => std::path::absolute(dir).map_err(used)?,
        };
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
            return Err(used(io::Error::from(io::ErrorKind::InvalidFilename)));
        };
        let (parent, name) = (parent.to_owned(), name.to_owned());
        let made = |e| Failure::local("use", &parent, &e);
        fs::create_dir_all(&parent).map_err(made)?;
        let lock = File::open(&parent).map_err(made)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                println!("waiting for another download into {} ...", parent.display());
                lock.lock().map_err(made)?;
            }
            Err(TryLockError::Error(e)) => return Err(made(e)),
        }
        let destination = Destination { dir, parent, name, _lock: lock };
        // A run that was killed while it copied leaves this directory.
        destination.clear(&destination.sibling("incoming"))?;
        destination.refuse_foreign_content(Path::new(""))?;
        Ok(destination)
    }

    /// Copies the files into a sibling directory, checks their hashes, and renames the directory.
    pub fn install(&self, sources: &[(PublishedFile, PathBuf)]) -> Result<(), Failure> {
        let incoming = self.sibling("incoming");
        let result = self.fill(&incoming, sources).and_then(|()| self.swap(&incoming));
        if result.is_err() {
            // The first failure is reported; a failure to clean up is not.
            let _ = fs::remove_dir_all(&incoming);
        }
        result
    }

    fn fill(&self, incoming: &Path, sources: &[(PublishedFile, PathBuf)]) -> Result<(), Failure> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |e: io::Error| Failure::local("write", &path, &e)
        };
        fs::create_dir(incoming).map_err(failed(incoming))?;
        for (file, source) in sources {
            let target = incoming.join(&file.name);
            if let Some(folder) = target.parent().filter(|folder| *folder != incoming) {
                make_readable_folder(folder).map_err(failed(folder))?;
            }
            let mut out = File::create(&target).map_err(failed(&target))?;
            let copied = content::copy_checked(source, file, &mut out, || ());
            if let Content::Differs(found) = copied.map_err(failed(&target))? {
                return Err(changed_underneath(&file.name, &found));
            }
            // Readable whatever the umask: the server that loads the file may be another user.
            out.set_permissions(Permissions::from_mode(0o644)).map_err(failed(&target))?;
            out.sync_all().map_err(failed(&target))?;
            if let Some(folder) = target.parent() {
                sync_directory(folder).map_err(failed(folder))?;
            }
        }
        fs::set_permissions(incoming, Permissions::from_mode(0o755)).map_err(failed(incoming))?;
        sync_directory(incoming).map_err(failed(incoming))
    }

    fn swap(&self, incoming: &Path) -> Result<(), Failure> {
        let failed = |e| Failure::local("replace", &self.dir, &e);
        let replaced = self.sibling("replaced");
        self.clear(&replaced)?;
        let had_one = self.dir.exists();
        if had_one {
            fs::rename(&self.dir, &replaced).map_err(failed)?;
        }
        fs::rename(incoming, &self.dir).map_err(failed)?;
        sync_directory(&self.parent).map_err(failed)?;
        self.clear(&replaced)
    }

    /// A directory that contains anything but a model's files is not replaced. `folder` is relative
    /// to it.
    fn refuse_foreign_content(&self, folder: &Path) -> Result<(), Failure> {
        let path = self.dir.join(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Failure::local("read", &path, &e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Failure::local("read", &path, &e))?;
            let name = folder.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let mut files = MODEL_FILES.iter().map(Path::new);
            if is_folder && files.any(|file| file.parent() == Some(&name)) {
                self.refuse_foreign_content(&name)?;
            } else if is_folder || !files.any(|file| file == name) {
                return Err(Failure::new(
                    Kind::Other,
                    format!(
                        "{} contains {}, which is not a model file",
                        self.dir.display(),
                        name.display()
                    ),
                    "so the directory was not changed and nothing was downloaded",
                    "name a directory that is for the model only",
                ));
            }
        }
        Ok(())
    }

    /// A hidden sibling of the model directory.
    fn sibling(&self, role: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(".");
        name.push(role);
        self.parent.join(name)
    }

    fn clear(&self, path: &Path) -> Result<(), Failure> {
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Failure::local("delete", path, &e))
            }
            _ => Ok(()),
        }
    }
}

/// Creates a directory that each user may read, unless it exists.
fn make_readable_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn changed_underneath(name: &str, found: &str) -> Failure {
    Failure::new(
        Kind::Refused,
        format!("{name} changed in the download cache while it was copied: {found}"),
        "so no directory was made",
        "run the command again",
    )
}
