//! `llmd validate`: what the API server and the controller would say, without a cluster.

use std::process::ExitCode;

use serde::Serialize;

use crate::cli::ValidateArgs;
use crate::documents::Documents;
use crate::exit::{self, Failure};
use crate::output::{self, Format};

/// What was found about one deployment.
#[derive(Serialize)]
struct Report {
    source: String,
    valid: bool,
    errors: Vec<llmd_render::FieldError>,
    notes: Vec<String>,
}

/// Reports on every deployment: problems on standard error for people, everything as data with `-o json|yaml`.
pub(crate) fn validate(args: &ValidateArgs) -> Result<ExitCode, Failure> {
    let documents = Documents::read(&args.input.files)?;
    let reports: Vec<Report> = documents
        .deployments
        .iter()
        .map(|(source, deployment)| {
            let (errors, notes) = match documents.validate(deployment, "default", None) {
                Ok(validated) => (Vec::new(), validated.notes),
                Err(errors) => (errors, Vec::new()),
            };
            Report {
                source: source.clone(),
                valid: errors.is_empty(),
                errors,
                notes,
            }
        })
        .collect();
    if args.output != Format::Table {
        output::print_value(&reports, args.output)?;
        let valid = reports.iter().all(|report| report.valid);
        return Ok(ExitCode::from(if valid { exit::OK } else { exit::USAGE }));
    }
    let mut problems = Vec::new();
    for report in &reports {
        problems.extend(
            report
                .errors
                .iter()
                .map(|error| format!("{}: {error}", report.source)),
        );
        if report.valid {
            output::print(&format!("{} is valid\n", report.source))?;
        }
        for note in &report.notes {
            output::print(&format!("  {note}\n"))?;
        }
    }
    for name in &documents.others {
        output::print(&format!("{name} is valid\n"))?;
    }
    if problems.is_empty() {
        Ok(ExitCode::from(exit::OK))
    } else {
        Err(Failure::input(problems))
    }
}
