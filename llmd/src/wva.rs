//! `llmd wva`: the autoscaler's planner, without a cluster.

use std::path::Path;
use std::time::Instant;

use llmd_wva_plan::{Fleet, Plan};
use serde_json::json;

use crate::documents::read_one;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Plans the fleet of a file, and writes it as a program for other solvers.
pub(crate) fn plan(file: &Path, format: Format, program: Option<&Path>) -> Result<(), Failure> {
    let (source, text) = read_one(file)?;
    let wrong = |error| Failure::usage(format!("{source}: {error}"));
    let fleet = Fleet::read(&text).map_err(wrong)?;
    if let Some(program) = program {
        let written = std::fs::write(program, llmd_wva_plan::lp::text(&fleet));
        written.map_err(|error| Failure::runtime(format!("--write-lp {}: {error}", program.display())))?;
    }
    let began = Instant::now();
    let plan = llmd_wva_plan::solve(&fleet).map_err(wrong)?;
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    if format != Format::Table {
        let mut value = json!(plan);
        value["milliseconds"] = json!(milliseconds);
        return output::print_value(&value, format);
    }
    output::print(&table(&plan, milliseconds))
}

fn table(plan: &Plan, milliseconds: f64) -> String {
    let head = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut variants: Vec<Vec<String>> = vec![head(&[
        "MODEL", "VARIANT", "CURRENT", "DESIRED", "CAPACITY", "MISSING",
    ])];
    for model in &plan.models {
        for variant in &model.variants {
            variants.push(vec![
                model.name.clone(),
                variant.name.clone(),
                variant.current.to_string(),
                variant.replicas.to_string(),
                format!("{:.2}", variant.capacity),
                format!("{:.2}", model.missing),
            ]);
        }
    }
    let mut pools: Vec<Vec<String>> = vec![head(&["POOL", "USED", "GPUS", "ONE MORE SAVES/H"])];
    for pool in &plan.pools {
        pools.push(vec![
            pool.name.clone(),
            pool.used.to_string(),
            pool.gpus.to_string(),
            format!("{:.2}", pool.shadow_price),
        ]);
    }
    let proof = if plan.gap > 1e-9 {
        format!(
            "no plan costs less than {:.2}: at most {:.3} % can be saved",
            plan.bound,
            plan.gap * 100.0
        )
    } else {
        "no plan costs less".to_owned()
    };
    format!(
        "{}\n{}\ncost {:.2}; {proof}; {milliseconds:.1} ms\n",
        output::columns(&variants),
        output::columns(&pools),
        plan.cost,
    )
}
