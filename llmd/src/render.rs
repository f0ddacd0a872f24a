//! `llmd render`: the Kubernetes objects of a deployment.

use llmd_render::{RenderOptions, Rendered};

use crate::cli::RenderArgs;
use crate::documents::Documents;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Renders every deployment of the files, in their order.
pub(crate) fn render(args: &RenderArgs) -> Result<(), Failure> {
    let documents = Documents::read(&args.input.files)?;
    if documents.deployments.is_empty() {
        return Err(Failure::usage(
            "no LLMDeployment in the files: there is nothing to render",
        ));
    }
    let defaults = RenderOptions::default();
    let options = RenderOptions {
        namespace: args.namespace.clone(),
        image_repository: args
            .image_repository
            .clone()
            .unwrap_or_else(|| defaults.image_repository.clone()),
        image_tag: args
            .image_tag
            .clone()
            .unwrap_or_else(|| defaults.image_tag.clone()),
        inference_pool: !args.no_inference_pool,
        ..defaults
    };
    let mut rendered = Rendered::default();
    let mut problems = Vec::new();
    for (source, deployment) in &documents.deployments {
        match documents.validate(deployment, &options.namespace, None) {
            Ok(validated) => {
                for note in validated.notes {
                    anstream::eprintln!("{source}: {note}");
                }
                rendered
                    .objects
                    .extend(llmd_render::render(&validated.deployment, &options).objects);
            }
            Err(errors) => problems.extend(errors.iter().map(|error| format!("{source}: {error}"))),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::input(problems));
    }
    match args.output {
        Format::Yaml => output::print(&rendered.to_yaml()),
        Format::Json => output::print_value(&rendered.to_list(), Format::Json),
        Format::Table => {
            let mut rows = vec![["KIND", "NAME"].map(str::to_owned).to_vec()];
            rows.extend(
                rendered
                    .objects
                    .iter()
                    .map(|object| vec![object.kind().to_owned(), object.name().to_owned()]),
            );
            output::print(&output::columns(&rows))
        }
    }
}
