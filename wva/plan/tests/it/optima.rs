//! Fifty small fleets with the optima that another solver proved; `cargo xtask verify --store` writes them.

use llmd_wva_plan::Fleet;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    fleet: Fleet,
    optimum: f64,
}

#[test]
fn plans_of_small_fleets_are_the_optima() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("../data/optima.json")).unwrap();
    assert_eq!(rows.len(), 50);
    for (number, row) in rows.iter().enumerate() {
        let plan = llmd_wva_plan::solve(&row.fleet).unwrap();
        let close = 1e-5 * row.optimum.max(1.0);
        assert!(
            (plan.cost - row.optimum).abs() < close,
            "fleet {number}: {} instead of {}",
            plan.cost,
            row.optimum
        );
        assert!(
            plan.bound <= row.optimum + close,
            "fleet {number}: bound {}",
            plan.bound
        );
    }
}
