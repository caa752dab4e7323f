//! The result: a table in Markdown, for people to read and to paste.

use std::fmt;

/// What a number is meant to be.
#[derive(Clone, Copy)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// All that was measured.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    /// Adds a number with its unit.
    pub(super) fn add(&mut self, what: &str, measured: f64, unit: &str, target: Target) {
        let (promised, ok) = match target {
            Target::AtLeast(least) => (format!("≥ {} {unit}", number(least)), measured >= least),
            Target::AtMost(most) => (format!("≤ {} {unit}", number(most)), measured <= most),
        };
        let ok = if ok { "yes" } else { "**no**" };
        let measured = format!("{} {unit}", number(measured));
        let measured = measured.trim_end().to_owned();
        self.rows
            .push([what, &measured, promised.trim_end(), ok].map(str::to_owned));
    }

    /// Says that something could not be measured.
    pub(super) fn not_measured(&mut self, what: &str, why: &str) {
        let why = format!("not measured: {}", why.replace(['\n', '|'], " "));
        self.rows
            .push([what.to_owned(), why, String::new(), String::new()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | measured | target | ok |\n|---|---:|---:|---|")?;
        for [what, measured, target, ok] in &self.rows {
            writeln!(f, "| {what} | {measured} | {target} | {ok} |")?;
        }
        Ok(())
    }
}

/// Large numbers in groups of three digits, small ones with one decimal.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        let text = format!("{value:.1}");
        return text.trim_end_matches(".0").to_owned();
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(250.4), "250");
        assert_eq!(number(3.25), "3.2");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn each_number_is_held_against_its_target() {
        let mut table = Table::default();
        table.add("speed", 199_999.0, "per second", Target::AtLeast(200_000.0));
        table.add("memory", 7.5, "MiB", Target::AtMost(8.0));
        table.not_measured("latency", "no\nroot");
        let expected = "\
| what | measured | target | ok |
|---|---:|---:|---|
| speed | 199,999 per second | ≥ 200,000 per second | **no** |
| memory | 7.5 MiB | ≤ 8 MiB | yes |
| latency | not measured: no root |  |  |
";
        assert_eq!(table.to_string(), expected);
    }
}
