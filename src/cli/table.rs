//! Plain text tables.

/// Columns as wide as their widest cell, two blanks between them; numbers-only columns are right-aligned.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let is_number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains([' ', ':']);
    let right = |column: usize| rows.iter().all(|row| is_number(&row[column]));
    let layout: Vec<(usize, bool)> = (0..head.len()).map(|column| (width(column), right(column))).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&layout)
            .map(|(cell, &(width, right))| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "7".into()], vec!["long".into(), "12".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name   n\na      7\nlong  12");
    }
}
