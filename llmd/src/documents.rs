//! Reads the files that `-f` names; `-` is standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use llmd_crds::{AcceleratorProfile, LLMDeployment, WellLitPath};
use llmd_render::{Document, FieldError, Inputs, Validated};

use crate::exit::Failure;

/// Most bytes read of one file: a deployment is a few kilobytes.
const LIMIT: u64 = 16 * 1024 * 1024;

/// The documents of all files. Paths and profiles count for every deployment, wherever they stand.
#[derive(Default)]
pub(crate) struct Documents {
    /// Deployments with file and name, for messages.
    pub(crate) deployments: Vec<(String, LLMDeployment)>,
    /// File and name of the other documents.
    pub(crate) others: Vec<String>,
    paths: Vec<WellLitPath>,
    accelerators: Vec<AcceleratorProfile>,
}

impl Documents {
    /// Reads and decodes all files; each file that cannot be decoded is a problem of its own.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, Failure> {
        let mut documents = Self::default();
        let mut problems = Vec::new();
        for path in files {
            let (source, text) = read_one(path)?;
            match llmd_render::decode(&text) {
                Ok(decoded) => decoded
                    .into_iter()
                    .for_each(|document| documents.add(&source, document)),
                Err(error) => problems.push(format!("{source}: {error}")),
            }
        }
        if problems.is_empty() {
            Ok(documents)
        } else {
            Err(Failure::input(problems))
        }
    }

    /// Deployments that were read elsewhere, each with a name for messages.
    pub(crate) fn of(deployments: Vec<(String, LLMDeployment)>) -> Self {
        Self {
            deployments,
            ..Self::default()
        }
    }

    /// Adds paths and profiles of a cluster; those of the files win over ones of the same name.
    pub(crate) fn supply(&mut self, paths: Vec<WellLitPath>, accelerators: Vec<AcceleratorProfile>) {
        let own: Vec<_> = self.paths.iter().map(|path| path.metadata.name.clone()).collect();
        self.paths.extend(
            paths
                .into_iter()
                .filter(|path| !own.contains(&path.metadata.name)),
        );
        let own: Vec<_> = self
            .accelerators
            .iter()
            .map(|profile| profile.metadata.name.clone())
            .collect();
        self.accelerators.extend(
            accelerators
                .into_iter()
                .filter(|profile| !own.contains(&profile.metadata.name)),
        );
    }

    fn add(&mut self, source: &str, document: Document) {
        let label = |kind: &str, name: Option<&String>| {
            format!("{source}: {kind}/{}", name.map_or("", String::as_str))
        };
        match document {
            Document::Deployment(one) => {
                self.deployments
                    .push((label("LLMDeployment", one.metadata.name.as_ref()), *one));
            }
            Document::Path(one) => {
                self.others.push(label("WellLitPath", one.metadata.name.as_ref()));
                self.paths.push(*one);
            }
            Document::Accelerator(one) => {
                self.others
                    .push(label("AcceleratorProfile", one.metadata.name.as_ref()));
                self.accelerators.push(*one);
            }
        }
    }

    /// Validates one of the deployments; `kept` is the path that the operator kept for it.
    pub(crate) fn validate(
        &self,
        deployment: &LLMDeployment,
        namespace: &str,
        kept: Option<&str>,
    ) -> Result<Validated, Vec<FieldError>> {
        llmd_render::validate(Inputs {
            deployment,
            paths: &self.paths,
            accelerators: &self.accelerators,
            namespace,
            kept,
        })
    }
}

/// The text of one file with its name for messages.
pub(crate) fn read_one(path: &Path) -> Result<(String, String), Failure> {
    if path == Path::new("-") {
        return text("standard input", &mut std::io::stdin().lock());
    }
    let name = path.display().to_string();
    let mut file = std::fs::File::open(path).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    text(&name, &mut file)
}

fn text(name: &str, from: &mut impl Read) -> Result<(String, String), Failure> {
    let mut content = String::new();
    let read = from.take(LIMIT + 1).read_to_string(&mut content);
    read.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    if content.len() as u64 > LIMIT {
        return Err(Failure::usage(format!(
            "{name}: is larger than {} MiB",
            LIMIT >> 20
        )));
    }
    Ok((name.to_owned(), content))
}
