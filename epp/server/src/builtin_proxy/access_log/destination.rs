//! Where lines of the access log go: stdout, or a file that somebody else may rename at any time.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Stdout, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Takes lines.
pub enum Destination {
    /// Not rotated by anybody.
    Stdout(Stdout),
    /// The end of a file.
    File(LogFile),
}

impl Destination {
    /// The end of `file`, which is made when there is none, or stdout.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn new(file: Option<&Path>) -> io::Result<Self> {
        Ok(match file {
            Some(path) => Self::File(LogFile::open(path.to_owned())?),
            None => Self::Stdout(io::stdout()),
        })
    }

    /// Before some lines: goes on in a new file when the one in use was renamed or removed (`logrotate`, with
    /// or without `create`). No signal is needed, and one file is asked about per write, not per line.
    pub(super) fn follow(&mut self) {
        if let Self::File(file) = self {
            file.follow();
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.file.flush(),
        }
    }
}

/// A file that is followed by its path.
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode of `file`.
    identity: (u64, u64),
    /// Whether a failure to open another file was told.
    told: bool,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let identity = identity(&file.metadata()?);
        Ok(Self {
            path,
            file,
            identity,
            told: false,
        })
    }

    fn follow(&mut self) {
        let is_same = std::fs::metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if is_same {
            return;
        }
        match Self::open(self.path.clone()) {
            Ok(opened) => *self = opened,
            // The old file still takes lines, which is better than losing them.
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "the access log was renamed and cannot be opened anew; lines go on into the old file");
                }
            }
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::{read_to_string, remove_file, rename};

    use super::*;

    fn say(destination: &mut Destination, line: &str) {
        destination.follow();
        writeln!(destination, "{line}").unwrap();
    }

    #[test]
    fn lines_go_on_in_a_new_file_after_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let [log, old] = ["log", "log.1"].map(|name| directory.path().join(name));
        let mut destination = Destination::new(Some(&log)).unwrap();
        say(&mut destination, "1");
        say(&mut destination, "2");
        rename(&log, &old).unwrap();
        say(&mut destination, "3");
        assert_eq!(read_to_string(&old).unwrap(), "1\n2\n");
        assert_eq!(read_to_string(&log).unwrap(), "3\n");

        // With `create`, somebody made the new file already.
        rename(&log, &old).unwrap();
        std::fs::write(&log, "made\n").unwrap();
        say(&mut destination, "4");
        assert_eq!(read_to_string(&log).unwrap(), "made\n4\n");

        // With `copytruncate` it stays the same file.
        std::fs::write(&log, "").unwrap();
        say(&mut destination, "5");
        assert_eq!(read_to_string(&log).unwrap(), "5\n");

        remove_file(&log).unwrap();
        say(&mut destination, "6");
        assert_eq!(read_to_string(&log).unwrap(), "6\n");
    }

    #[test]
    fn where_no_new_file_can_be_made_the_old_one_is_used_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let [logs, moved] = ["logs", "moved"].map(|name| directory.path().join(name));
        std::fs::create_dir(&logs).unwrap();
        let mut destination = Destination::new(Some(&logs.join("log"))).unwrap();
        rename(&logs, &moved).unwrap();
        say(&mut destination, "1");
        assert_eq!(read_to_string(moved.join("log")).unwrap(), "1\n");
        std::fs::create_dir(&logs).unwrap();
        say(&mut destination, "2");
        assert_eq!(read_to_string(logs.join("log")).unwrap(), "2\n");
    }
}
