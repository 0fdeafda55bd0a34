//! Figures: one JSON object per case, or a table for people.

use serde::Serialize;
use std::collections::BTreeMap;

/// The figures of one case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Case {
    pub(crate) bench: &'static str,
    pub(crate) case: String,
    /// What Foldstream does, in `unit`.
    pub(crate) ours: f64,
    /// What one would write without it.
    pub(crate) baseline: Option<f64>,
    /// What the parts below allow at best.
    pub(crate) ceiling: Option<f64>,
    pub(crate) unit: &'static str,
    /// Ours divided by baseline or ceiling; which one, `docs/performance.md` says.
    pub(crate) ratio: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// The most memory that this process held while ours was measured.
    pub(crate) rss_mb: Option<f64>,
    /// Other figures of this case.
    #[serde(flatten)]
    pub(crate) more: BTreeMap<&'static str, f64>,
}

impl Case {
    pub(crate) fn new(bench: &'static str, case: impl Into<String>, unit: &'static str) -> Self {
        Case {
            bench,
            case: case.into(),
            ours: 0.0,
            baseline: None,
            ceiling: None,
            unit,
            ratio: None,
            p50_ms: None,
            p99_ms: None,
            rss_mb: None,
            more: BTreeMap::new(),
        }
    }
    pub(crate) fn note(&mut self, name: &'static str, figure: f64) {
        self.more.insert(name, rounded(figure));
    }
    fn rounded(mut self) -> Self {
        self.ours = rounded(self.ours);
        for figure in [
            &mut self.baseline,
            &mut self.ceiling,
            &mut self.ratio,
            &mut self.p50_ms,
            &mut self.p99_ms,
            &mut self.rss_mb,
        ] {
            *figure = figure.map(rounded);
        }
        self
    }
}

/// Four digits say all that a measurement can.
fn rounded(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(3.0 - figure.abs().log10().floor());
    (figure * scale).round() / scale
}

/// Where the figures go.
pub(crate) struct Report {
    json: bool,
    cases: Vec<Case>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Report { json, cases: Vec::new() }
    }
    pub(crate) fn add(&mut self, case: Case) {
        let case = case.rounded();
        if self.json {
            match serde_json::to_string(&case) {
                Ok(line) => println!("{line}"),
                Err(error) => eprintln!("a case cannot be written as JSON: {error}"),
            }
        } else {
            eprintln!("  {}: {} {}", case.case, shown(Some(case.ours)), case.unit);
            self.cases.push(case);
        }
    }
    /// Prints the table, if that is wanted.
    pub(crate) fn finish(&self) {
        if self.json || self.cases.is_empty() {
            return;
        }
        println!("{}", table(&self.cases));
    }
}

const HEADINGS: [&str; 10] =
    ["bench", "case", "ours", "baseline", "ceiling", "unit", "ratio", "p50 ms", "p99 ms", "MB"];

fn table(cases: &[Case]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(cases.iter().map(|case| {
        [
            case.bench.to_owned(),
            case.case.clone(),
            shown(Some(case.ours)),
            shown(case.baseline),
            shown(case.ceiling),
            case.unit.to_owned(),
            shown(case.ratio),
            shown(case.p50_ms),
            shown(case.p99_ms),
            shown(case.rss_mb),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADINGS.len()).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for (place, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_text = matches!(column, 0 | 1 | 5);
            let cell =
                if is_text { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
            text.push_str(&cell);
        }
        let more = place.checked_sub(1).and_then(|n| cases.get(n)).map(|case| &case.more);
        for (name, figure) in more.into_iter().flatten() {
            text.push_str(&format!("{name}={} ", shown(Some(*figure))));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// A figure for people: thousands apart, small ones with two decimals.
fn shown(figure: Option<f64>) -> String {
    let Some(figure) = figure else { return "–".to_owned() };
    if figure.abs() < 100.0 {
        return format!("{figure:.2}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        let mut case = Case::new("append", "distinct-128", "events/s");
        case.ours = 123_456.789;
        case.baseline = Some(20_000.0);
        case.ratio = Some(6.172_839);
        case.p99_ms = Some(0.012_345);
        case.note("locked", 3.0);
        case.rounded()
    }

    #[test]
    fn a_case_is_one_object_with_the_names_that_scripts_know() {
        let json = serde_json::to_value(case()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "bench": "append", "case": "distinct-128", "ours": 123_500.0,
                "baseline": 20_000.0, "ceiling": null, "unit": "events/s", "ratio": 6.173,
                "p50_ms": null, "p99_ms": 0.01235, "rss_mb": null, "locked": 3.0,
            })
        );
    }
    #[test]
    fn a_table_is_for_people() {
        let text = table(&[case()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("append  distinct-128  123,500"), "{text}");
        assert!(lines[1].ends_with("locked=3.00"), "{text}");
    }
}
