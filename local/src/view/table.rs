//! Lays the live table out; pure, so that it is tested as text.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::widgets::{Row as Line, Table, Widget};

use super::rows::Row;

/// Column titles, in order.
const TITLES: [&str; 8] = [
    "endpoint",
    "state",
    "queue",
    "running",
    "kv use",
    "in flight",
    "hit rate",
    "restarts",
];

/// The table as lines of at most `width` cells.
pub(super) fn lines(rows: &[Row], width: u16) -> Vec<String> {
    let name = rows
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or(0)
        .clamp(TITLES[0].len(), 48) as u16;
    let widths = [name, 11, 5, 7, 6, 9, 8, 8].map(Constraint::Length);
    let table = Table::new(rows.iter().map(|row| Line::new(cells(row))), widths)
        .header(Line::new(TITLES))
        .column_spacing(1);
    let area = Rect::new(0, 0, width.max(20), rows.len() as u16 + 1);
    let mut buffer = Buffer::empty(area);
    table.render(area, &mut buffer);
    (0..area.height)
        .map(|y| {
            let line: String = (0..area.width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

fn cells(row: &Row) -> [String; 8] {
    let load = row.load.clone().unwrap_or_default();
    let listed = row.load.is_some();
    let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let percent =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.0} %", value * 100.0));
    [
        row.name.clone(),
        row.state.to_owned(),
        number(load.waiting),
        number(load.running),
        percent(load.kv_cache_usage),
        if listed {
            load.in_flight.to_string()
        } else {
            "-".to_owned()
        },
        percent(load.prefix_hit_rate),
        row.restarts.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::rows::Load;
    use super::*;

    #[test]
    fn unknown_values_are_dashes_and_narrow_terminals_cut() {
        let rows = [
            Row {
                name: "x-epp-0".into(),
                state: "ready",
                router: true,
                ..Row::default()
            },
            Row {
                name: "x-decode-0".into(),
                state: "restarting",
                restarts: 2,
                load: Some(Load {
                    waiting: Some(3),
                    running: Some(12),
                    kv_cache_usage: Some(0.256),
                    in_flight: 15,
                    prefix_hit_rate: None,
                }),
                ..Row::default()
            },
        ];
        let text = lines(&rows, 100);
        assert_eq!(
            text[0],
            "endpoint   state       queue running kv use in flight hit rate restarts"
        );
        assert_eq!(
            text[1],
            "x-epp-0    ready       -     -       -      -         -        0"
        );
        assert_eq!(
            text[2],
            "x-decode-0 restarting  3     12      26 %   15        -        2"
        );
        assert!(lines(&rows, 30).iter().all(|line| line.chars().count() <= 30));
    }
}
