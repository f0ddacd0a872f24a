//! From a text to rendered objects in one call.

use llmd_crds::{AcceleratorProfile, LLMDeployment, WellLitPath};
use llmd_render::{
    Document, FieldError, Inputs, RenderOptions, Rendered, Validated, decode, render, validate,
};
use serde_json::Value;

/// The documents of a text by kind.
#[derive(Default)]
pub(crate) struct Documents {
    pub(crate) deployments: Vec<LLMDeployment>,
    pub(crate) paths: Vec<WellLitPath>,
    pub(crate) accelerators: Vec<AcceleratorProfile>,
}

impl Documents {
    pub(crate) fn read(text: &str) -> Self {
        let mut documents = Self::default();
        for document in decode(text).unwrap_or_else(|error| panic!("{error}\n{text}")) {
            match document {
                Document::Deployment(deployment) => documents.deployments.push(*deployment),
                Document::Path(path) => documents.paths.push(*path),
                Document::Accelerator(profile) => documents.accelerators.push(*profile),
            }
        }
        documents
    }

    pub(crate) fn validate(&self, index: usize) -> Result<Validated, Vec<FieldError>> {
        validate(Inputs {
            deployment: &self.deployments[index],
            paths: &self.paths,
            accelerators: &self.accelerators,
            namespace: "default",
            kept: None,
        })
    }

    pub(crate) fn render(&self, index: usize) -> Rendered {
        self.render_with(index, &RenderOptions::default())
    }

    pub(crate) fn render_with(&self, index: usize, options: &RenderOptions) -> Rendered {
        let validated = self
            .validate(index)
            .unwrap_or_else(|errors| panic!("{}", lines(&errors)));
        render(&validated.deployment, options)
    }
}

/// One error per line, as the CLI prints them.
pub(crate) fn lines(errors: &[FieldError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A deployment called `x` with this spec (YAML flow or block text).
pub(crate) fn document(spec: &str) -> String {
    let spec: Value = serde_yaml::from_str(spec).unwrap_or_else(|error| panic!("{error}: {spec}"));
    serde_json::json!({
        "apiVersion": "llmd.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "x"}, "spec": spec,
    })
    .to_string()
}

/// The rendering of a spec.
pub(crate) fn rendered(spec: &str) -> Rendered {
    Documents::read(&document(spec)).render(0)
}

/// One object of a rendering as JSON; a workload of a coherent rollout has its revision behind its name.
pub(crate) fn object(rendered: &Rendered, kind: &str, name: &str) -> Value {
    let is_it = |found: &str| {
        let revision = found.strip_prefix(name);
        revision
            .is_some_and(|revision| revision.is_empty() || revision.len() == 9 && revision.starts_with('-'))
    };
    let mut objects = rendered.objects.iter();
    let found = objects.find(|object| object.kind() == kind && is_it(object.name()));
    found.unwrap_or_else(|| panic!("no {kind} {name}")).to_value()
}
