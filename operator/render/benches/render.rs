//! Cost of one deployment; the budget is 200 ms for 1,000 renderings.

#![allow(clippy::unwrap_used)] // a bench has nobody to report an error to

use divan::Bencher;
use llmd_render::{Document, Inputs, RenderOptions, decode, render, validate};

const TEXT: &str = "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {name: x}\n\
                    spec: {path: optimized-baseline, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}}\n";
const DEPLOYMENTS: usize = 1_000;

fn main() {
    divan::main();
}

fn validated() -> llmd_render::ValidatedDeployment {
    let documents = decode(TEXT).unwrap();
    let Document::Deployment(deployment) = &documents[0] else {
        unreachable!()
    };
    let inputs = Inputs {
        deployment,
        paths: &[],
        accelerators: &[],
        namespace: "default",
        kept: None,
    };
    validate(inputs).unwrap().deployment
}

/// Rendering alone.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn thousand_deployments(bencher: Bencher<'_, '_>) {
    let (deployment, options) = (validated(), RenderOptions::default());
    bencher.bench(|| {
        for _ in 0..DEPLOYMENTS {
            divan::black_box(render(divan::black_box(&deployment), &options));
        }
    });
}

/// Rendering and the bytes that are applied.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn thousand_deployments_to_yaml(bencher: Bencher<'_, '_>) {
    let (deployment, options) = (validated(), RenderOptions::default());
    bencher.bench(|| {
        for _ in 0..DEPLOYMENTS {
            divan::black_box(render(divan::black_box(&deployment), &options).to_yaml());
        }
    });
}

/// The step before: schema, rules, path, configuration of the Endpoint Picker.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn validate_ten(bencher: Bencher<'_, '_>) {
    let documents = decode(TEXT).unwrap();
    let Document::Deployment(deployment) = &documents[0] else {
        unreachable!()
    };
    bencher.bench(|| {
        for _ in 0..10 {
            let inputs = Inputs {
                deployment,
                paths: &[],
                accelerators: &[],
                namespace: "default",
                kept: None,
            };
            divan::black_box(validate(inputs).unwrap());
        }
    });
}
