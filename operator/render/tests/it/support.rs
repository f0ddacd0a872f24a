//! From text to rendered objects.

use llmd_crds::{AcceleratorProfile, LLMDeployment, WellLitPath};
use llmd_render::{
    Document, FieldError, Inputs, RenderOptions, Rendered, Validated, decode, render, validate,
};

/// The resources of one text, sorted by kind.
#[derive(Default)]
pub struct Resources {
    pub deployments: Vec<LLMDeployment>,
    pub paths: Vec<WellLitPath>,
    pub accelerators: Vec<AcceleratorProfile>,
}

pub fn resources(text: &str) -> Resources {
    let mut resources = Resources::default();
    for document in decode(text).unwrap() {
        match document {
            Document::Deployment(deployment) => resources.deployments.push(*deployment),
            Document::Path(path) => resources.paths.push(*path),
            Document::Accelerator(profile) => resources.accelerators.push(*profile),
        }
    }
    resources
}

pub fn check(text: &str) -> Result<Validated, Vec<FieldError>> {
    let resources = resources(text);
    validate(Inputs {
        deployment: &resources.deployments[0],
        paths: &resources.paths,
        accelerators: &resources.accelerators,
        namespace: "default",
    })
}

/// Renders the first deployment of a text with the default options.
pub fn rendered(text: &str) -> Rendered {
    render(&check(text).unwrap().deployment, &RenderOptions::default())
}

/// A deployment called `demo` with the given spec in YAML flow or block style.
pub fn deployment(spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!("apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata:\n  name: demo\nspec:\n  {spec}\n")
}
