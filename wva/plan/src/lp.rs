//! The fleet as a mixed-integer program, for solvers that prove what this planner finds (CPLEX LP format).
//!
//! ```text
//!  min  Σ price·r + start·u + stop·d + loss·s
//!  c:   Σ rate·r + s ≥ demand        each model
//!  g:   Σ gpus·r ≤ GPUs              each pool
//!  u ≥ r − now,  d ≥ now − r         where a change has a price
//! ```

use std::fmt::Write;

use crate::fleet::Fleet;
use crate::problem::{Column, Problem};

/// The program; variables are numbered by the places of models and variants, comments name them.
pub fn text(fleet: &Fleet) -> String {
    let problem = Problem::new(fleet);
    let mut out =
        String::from("\\ variables: r replicas, s demand that nobody serves, u started, d stopped\n");
    // A String takes everything.
    let _ = objective(&mut out, &problem);
    let _ = rows(&mut out, &problem);
    let _ = bounds(&mut out, fleet, &problem);
    out.push_str("End\n");
    out
}

fn each(problem: &Problem) -> impl Iterator<Item = (usize, usize, &Column)> {
    let needs = problem.needs.iter().enumerate();
    needs.flat_map(|(model, need)| {
        need.columns
            .iter()
            .enumerate()
            .map(move |(place, column)| (model, place, column))
    })
}

fn objective(out: &mut String, problem: &Problem) -> std::fmt::Result {
    out.push_str("Minimize\n cost:");
    for (model, place, column) in each(problem) {
        write!(out, "\n + {} r_{model}_{place}", column.price)?;
        if column.start > 0.0 {
            write!(out, " + {} u_{model}_{place}", column.start)?;
        }
        if column.stop > 0.0 {
            write!(out, " + {} d_{model}_{place}", column.stop)?;
        }
    }
    for (model, need) in problem.needs.iter().enumerate() {
        write!(out, "\n + {} s_{model}", need.loss)?;
    }
    out.push('\n');
    Ok(())
}

fn rows(out: &mut String, problem: &Problem) -> std::fmt::Result {
    out.push_str("Subject To\n");
    for (model, need) in problem.needs.iter().enumerate() {
        write!(out, " c_{model}: s_{model}")?;
        for (place, column) in need.columns.iter().enumerate() {
            write!(out, "\n + {} r_{model}_{place}", column.rate)?;
        }
        writeln!(out, " >= {}", need.demand)?;
    }
    for (pool, gpus) in problem.pools.iter().enumerate() {
        let mut row = String::new();
        for (model, place, column) in each(problem).filter(|(_, _, column)| column.pool == pool) {
            write!(row, "\n + {} r_{model}_{place}", column.gpus)?;
        }
        if !row.is_empty() {
            writeln!(out, " g_{pool}:{row} <= {gpus}")?;
        }
    }
    for (model, place, column) in each(problem) {
        let now = column.current;
        if column.start > 0.0 {
            writeln!(
                out,
                " u_{model}_{place}_: r_{model}_{place} - u_{model}_{place} <= {now}"
            )?;
        }
        if column.stop > 0.0 {
            writeln!(
                out,
                " d_{model}_{place}_: r_{model}_{place} + d_{model}_{place} >= {now}"
            )?;
        }
    }
    Ok(())
}

fn bounds(out: &mut String, fleet: &Fleet, problem: &Problem) -> std::fmt::Result {
    out.push_str("Bounds\n");
    for (model, place, column) in each(problem) {
        let variant = &fleet.models[model].variants[column.variant];
        write!(out, " r_{model}_{place} >= {}", column.min)?;
        writeln!(
            out,
            " \\ {} of {}",
            line(&variant.name),
            line(&fleet.models[model].name)
        )?;
        if let Some(max) = variant.max {
            writeln!(out, " r_{model}_{place} <= {max}")?;
        }
    }
    out.push_str("General\n");
    for (model, place, _) in each(problem) {
        writeln!(out, " r_{model}_{place}")?;
    }
    Ok(())
}

/// A name within a comment, which a line break would end.
fn line(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}
