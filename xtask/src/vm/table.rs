//! The conservation law in numbers, every scenario on every kernel, as one Markdown table.

use std::fmt::Write as _;

use super::results::{Law, LawOf};

const HEAD: &str = "\
| scenario | kernel | oom_kill | node | logged | kills | counter_only | double_counts | already_exiting | residual | misattributed |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// Makes the table, sorted by scenario and then by kernel, in the order given; empty without rows.
pub(crate) fn markdown(kernels: &[(&str, &[LawOf])]) -> String {
    let mut rows: Vec<(&str, usize, &str, Law)> = Vec::new();
    for (place, (kernel, laws)) in kernels.iter().enumerate() {
        let of_kernel = laws.iter();
        rows.extend(of_kernel.map(|of| (of.scenario.as_str(), place, *kernel, of.law)));
    }
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by_key(|(scenario, place, ..)| (*scenario, *place));
    let mut table = HEAD.to_owned();
    for (scenario, _, kernel, law) in rows {
        let Law {
            truth,
            node,
            log,
            kills,
            counter_only,
            double_counts,
            already_exiting,
            residual,
            misattributed,
        } = law;
        let log = log.map_or_else(|| "?".to_owned(), |log| log.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| {scenario} | {kernel} | {truth} | {node} | {log} | {kills} | {counter_only} | {double_counts} \
             | {already_exiting} | {residual} | {misattributed} |"
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scenario: &str, truth: i64) -> LawOf {
        let law = Law {
            truth,
            ..Law::default()
        };
        LawOf {
            scenario: scenario.to_owned(),
            law,
        }
    }

    #[test]
    fn rows_are_by_scenario_and_then_in_the_order_of_kernels() {
        let old = [of("b", 1), of("a", 2)];
        let new = [of("a", 3)];
        let table = markdown(&[("5.10", &old), ("6.1", &new)]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| a | 5.10 | 2 | 0 | ? | 0 | 0 | 0 | 0 | 0 | 0 |",
                "| a | 6.1 | 3 | 0 | ? | 0 | 0 | 0 | 0 | 0 | 0 |",
                "| b | 5.10 | 1 | 0 | ? | 0 | 0 | 0 | 0 | 0 | 0 |",
            ]
        );
    }

    #[test]
    fn no_numbers_no_table() {
        assert_eq!(markdown(&[("6.1", &[])]), "");
    }
}
