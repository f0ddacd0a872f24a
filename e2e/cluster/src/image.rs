//! Container images without Docker: a program with its libraries as a docker-archive.

mod archive;
pub mod push;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

pub use archive::Packed;
use archive::Variant;

/// What holds a pod's namespaces: a program that sleeps. Packed with each cluster.
pub(crate) const PAUSE: &str = "e2e.local/pause:1";

/// The Envoy image that rendered pods ask for by default.
pub const ENVOY: &str = "docker.io/envoyproxy/envoy:distroless-v1.40.0";

/// Tags of our image and the entrypoint of each; the name in `argv[0]` selects the role.
const ROLES: [&str; 3] = ["llmd", "llmd-epp", "llmd-routing-sidecar"];

/// Packs an `llmd` binary, debug information left out: one layer, one image per role named
/// `REPOSITORY/ROLE:TAG`. The Endpoint Picker is also found at `/app/epp`, where KServe starts upstream's. Returns the
/// archive's facts.
pub fn pack_llmd(binary: &Path, repository: &str, tag: &str, archive: &Path) -> anyhow::Result<Packed> {
    let stage = Stage::new()?;
    stage.program(binary, "llmd")?;
    strip(&stage.path("llmd"))?;
    for role in ROLES.iter().filter(|role| **role != "llmd") {
        std::os::unix::fs::symlink("llmd", stage.path(role))?;
    }
    std::fs::create_dir(stage.path("app"))?;
    std::os::unix::fs::symlink("../llmd", stage.path("app/epp"))?;
    stage.roots()?;
    let variants: Vec<Variant> = ROLES
        .iter()
        .map(|role| Variant {
            name: format!("{repository}/{role}:{tag}"),
            entrypoint: vec![format!("/{role}")],
        })
        .collect();
    archive::write(stage.folder.path(), &variants, archive)
}

/// Packs the Envoy binary that `e2e/tools/install.sh` installed under the name of an Envoy image.
pub fn pack_envoy(binary: &Path, name: &str, archive: &Path) -> anyhow::Result<Packed> {
    let stage = Stage::new()?;
    stage.program(binary, "usr/local/bin/envoy")?;
    stage.roots()?;
    let variant = Variant {
        name: name.to_owned(),
        // upstream's entrypoint takes the program's name or only its flags; rendered pods give only flags
        entrypoint: vec!["/usr/local/bin/envoy".to_owned()],
    };
    archive::write(stage.folder.path(), &[variant], archive)
}

/// Packs a shell script under a program's name, with the shell, `sleep`, and an `llmd` binary at `/llmd` that it may
/// hand over to.
pub(crate) fn pack_script(
    binary: &Path,
    program: &str,
    script: &str,
    name: &str,
    archive: &Path,
) -> anyhow::Result<Packed> {
    let stage = Stage::new()?;
    stage.program(binary, "llmd")?;
    strip(&stage.path("llmd"))?;
    stage.program(Path::new("/bin/sh"), "bin/sh")?;
    stage.program(Path::new("/bin/sleep"), "bin/sleep")?;
    let path = stage.path("usr/bin").join(program);
    std::fs::create_dir_all(stage.path("usr/bin"))?;
    std::fs::write(&path, script)?;
    run(Command::new("chmod").arg("755").arg(&path))?;
    stage.roots()?;
    let variant = Variant {
        name: name.to_owned(),
        entrypoint: vec![format!("/usr/bin/{program}")],
    };
    archive::write(stage.folder.path(), &[variant], archive)
}

/// Packs the program that every pod's sandbox runs.
pub(crate) fn pack_pause(archive: &Path) -> anyhow::Result<Packed> {
    let stage = Stage::new()?;
    stage.program(Path::new("/bin/sleep"), "pause")?;
    let variant = Variant {
        name: PAUSE.to_owned(),
        entrypoint: vec!["/pause".to_owned(), "infinity".to_owned()],
    };
    archive::write(stage.folder.path(), &[variant], archive)
}

/// The content of an image while it is gathered.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let stage = Self { folder };
        // `tar` keeps modes, and the root of an image is for everybody
        run(Command::new("chmod").arg("755").arg(stage.folder.path()))?;
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name.trim_start_matches('/'))
    }

    fn copy(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let to = self.path(to);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    }

    /// A program with the shared libraries that it loads, at the paths where it looks for them.
    fn program(&self, binary: &Path, to: &str) -> anyhow::Result<()> {
        self.copy(binary, to)?;
        let output = Command::new("ldd")
            .arg(binary)
            .output()
            .context("cannot start ldd")?;
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            self.copy(Path::new(&library), &library)?;
        }
        Ok(())
    }

    /// Certificate authorities and a folder for temporary files.
    fn roots(&self) -> anyhow::Result<()> {
        let roots = "/etc/ssl/certs/ca-certificates.crt";
        if Path::new(roots).exists() {
            self.copy(Path::new(roots), roots)?;
        }
        std::fs::create_dir(self.path("tmp"))?;
        run(Command::new("chmod").arg("1777").arg(self.path("tmp")))
    }
}

/// Paths in what `ldd` says: `libc.so.6 => /lib/…/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(ldd: &str) -> Vec<String> {
    ldd.lines()
        .filter_map(|line| {
            let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
            let path = path.split(' ').next()?;
            path.starts_with('/').then(|| path.to_owned())
        })
        .collect()
}

/// Without the program `strip` the image is larger and works as well.
fn strip(binary: &Path) -> anyhow::Result<()> {
    match Command::new("strip").arg(binary).status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("cannot start strip"),
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("strip failed with {status}"),
    }
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn libraries_are_found_in_both_forms() {
        let said = "\tlinux-vdso.so.1 (0x1)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x2)\n\t/lib64/ld-linux.so.2 (0x3)\n\tstatically linked\n";
        assert_eq!(libraries(said), ["/lib/x/libm.so.6", "/lib64/ld-linux.so.2"]);
    }
}
