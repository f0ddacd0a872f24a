//! Every file that people copy validates and renders.

use std::path::Path;

use llmd_render::{Inputs, RenderOptions, render, validate};

use crate::support::resources;

#[test]
fn every_example_validates_and_renders() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    assert!(files.len() >= 6, "{} examples", files.len());
    // Profiles and paths of one example may serve another, as in a cluster.
    let everything: String = files
        .iter()
        .map(|path| format!("---\n{}", std::fs::read_to_string(path).unwrap()))
        .collect();
    let all = resources(&everything);
    assert!(all.deployments.len() >= 6);
    for deployment in &all.deployments {
        let inputs = Inputs {
            deployment,
            paths: &all.paths,
            accelerators: &all.accelerators,
            namespace: "default",
        };
        let name = deployment.metadata.name.clone().unwrap();
        let validated = validate(inputs).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        let rendered = render(&validated.deployment, &RenderOptions::default());
        assert!(rendered.objects.len() >= 8, "{name}");
    }
}
