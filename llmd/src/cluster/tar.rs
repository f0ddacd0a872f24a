//! A compressed archive of text files, in memory.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes of a block; headers are one, contents are padded to whole ones.
const BLOCK: usize = 512;

/// Files that become a `.tar.gz` (POSIX ustar).
pub(crate) struct Archive {
    out: GzEncoder<Vec<u8>>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self {
            out: GzEncoder::new(Vec::new(), Compression::default()),
        }
    }

    /// Adds a file; `modified` is in seconds since 1970.
    pub(crate) fn add(&mut self, path: &str, content: &[u8], modified: u64) -> std::io::Result<()> {
        self.out.write_all(&header(path, content.len(), modified)?)?;
        self.out.write_all(content)?;
        let rest = content.len() % BLOCK;
        if rest > 0 {
            self.out.write_all(&vec![0; BLOCK - rest])?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> std::io::Result<Vec<u8>> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

fn header(path: &str, size: usize, modified: u64) -> std::io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    // the name field takes 100 bytes, the prefix field the folders before it
    let (prefix, name) = if path.len() <= 100 {
        ("", path)
    } else {
        path.rsplit_once('/').unwrap_or(("", path))
    };
    if name.len() > 100 || prefix.len() > 155 {
        return Err(std::io::Error::other(format!(
            "{path} is too long for an archive"
        )));
    }
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{modified:011o}"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    put(345, prefix);
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
