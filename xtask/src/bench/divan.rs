//! Reads the table that divan prints: a tree of names with the median in the third column.

use super::report::Figure;

/// Medians that have a budget: bench program, path in its tree, nanoseconds.
const BUDGETS: &[(&str, &str, f64)] = &[
    ("schedule", "default_config_1_kb/1000", 50e3),
    ("schedule", "default_config_all_tied/1000", 50e3),
    ("schedule", "optimized_baseline_1_kb/1000", 50e3),
    ("schedule", "six_plugins_1_kb/1000", 50e3),
    ("extract", "vllm_page", 15e3),
    ("render", "render_1000", 200e6),
];

/// The table of one program, read line by line.
pub(super) struct Table {
    bench: String,
    /// Names of the groups above the current line.
    above: Vec<String>,
}

impl Table {
    /// An empty table.
    pub(super) fn new(bench: &str) -> Self {
        Self {
            bench: bench.to_owned(),
            above: Vec::new(),
        }
    }

    /// The figure in a line, if it is a measured one.
    pub(super) fn line(&mut self, line: &str) -> Option<Figure> {
        let marker = line.find("├─ ").or_else(|| line.find("╰─ "))?;
        let depth = line[..marker].chars().count() / 3;
        let rest: Vec<&str> = line[marker..].split('│').collect();
        let first = rest[0].get("├─ ".len()..)?;
        let name = first.split("  ").next()?.trim().to_owned();
        self.above.truncate(depth);
        self.above.push(name);
        let median = rest.get(2)?.trim();
        let path = self.above.join("/");
        let nanoseconds = duration(median)?;
        let budget = BUDGETS
            .iter()
            .find(|(bench, name, _)| *bench == self.bench && *name == path)
            .map(|(_, _, budget)| *budget);
        let (unit, scale) = unit(nanoseconds);
        Some(Figure {
            name: format!("{}: {}", self.bench, path.replace('_', " ")),
            value: nanoseconds / scale,
            unit: unit.to_owned(),
            budget: budget.map(|budget| budget / scale),
            note: "median".to_owned(),
        })
    }
}

fn duration(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let scale = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

fn unit(nanoseconds: f64) -> (&'static str, f64) {
    match nanoseconds {
        long if long >= 1e9 => ("s", 1e9),
        middle if middle >= 1e6 => ("ms", 1e6),
        short if short >= 1e3 => ("µs", 1e3),
        _ => ("ns", 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_read_with_their_path_and_budget() {
        let page = "Timer precision: 10 ns\n\
            schedule               fastest       │ slowest       │ median        │ mean          │ samples │ iters\n\
            ├─ group                             │               │               │               │         │\n\
            │  ╰─ 64               1.1 µs        │ 2 µs          │ 1.5 µs        │ 1.6 µs        │ 100     │ 100\n\
            ╰─ optimized_baseline_1_kb    │               │               │               │         │\n\
            \u{20}  ╰─ 1000              80 µs         │ 200 µs        │ 90.5 µs       │ 95 µs         │ 100     │ 100\n";
        let mut table = Table::new("schedule");
        let figures: Vec<_> = page.lines().filter_map(|line| table.line(line)).collect();
        assert_eq!(figures.len(), 2);
        assert_eq!(figures[0].name, "schedule: group/64");
        assert!((figures[1].value - 90.5).abs() < 1e-9);
        assert_eq!((figures[1].budget, figures[1].unit.as_str()), (Some(50.0), "µs"));
    }
}
