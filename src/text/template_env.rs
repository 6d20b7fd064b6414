//! The template environment: Jinja as `transformers` sets it up, within a budget.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;

/// Instructions, or units of 64 bytes, one rendering may use: a template from a stranger's file can neither hang the
/// server nor take more than 128 MB. A thousand messages use a twentieth of it.
const FUEL: u64 = 2_000_000;
const RECURSION_LIMIT: usize = 100;
/// Blanks by which `tojson` indents, at most: they use no fuel.
const MAX_INDENT: usize = 16;
/// Name of the one template in the environment.
pub(super) const TEMPLATE: &str = "chat_template";

/// An environment that holds `source`.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_unknown_method_callback(unknown_method_callback);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION_LIMIT);
    env.add_filter("tojson", tojson);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", |format: String| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        strftime(&format, seconds)
    });
    env.add_template_owned(TEMPLATE, without_generation_tags(source))?;
    Ok(env)
}

/// `{% generation %}` marks what to train on; it changes no text. `if true` keeps its effect on blanks.
fn without_generation_tags(source: &str) -> String {
    let mut out = source.to_owned();
    for (tag, instead) in [("generation", "if true"), ("endgeneration", "endif")] {
        for (open, close) in [("{% ", " %}"), ("{%- ", " %}"), ("{% ", " -%}"), ("{%- ", " -%}")] {
            out = out.replace(&format!("{open}{tag}{close}"), &format!("{open}{instead}{close}"));
        }
    }
    out
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=..., separators=..., sort_keys=...)`.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| {
        Error::new(ErrorKind::InvalidOperation, "tojson: cannot serialise").with_source(error)
    };
    let mut json = serde_json::to_value(value).map_err(failed)?;
    if indent.is_some_and(|indent| indent > MAX_INDENT) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson indents by at most {MAX_INDENT}")));
    }
    if sort_keys == Some(true) {
        json.sort_all_objects();
    }
    let mut bytes = Vec::new();
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.clone(), key.clone()],
        _ => [if indent.is_some() { "," } else { ", " }.into(), ": ".into()],
    };
    let formatter = PythonFormatter { indent, item, key, depth: 0, has_items: false };
    json.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// Python's blanks: after commas and colons, and none in empty lists and objects.
struct PythonFormatter {
    indent: Option<usize>,
    item: String,
    key: String,
    depth: usize,
    has_items: bool,
}

impl PythonFormatter {
    fn begin_item<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.new_line(out)
    }

    fn new_line<W: ?Sized + std::io::Write>(&self, out: &mut W) -> std::io::Result<()> {
        match self.indent {
            Some(indent) => write!(out, "\n{:width$}", "", width = indent * self.depth),
            None => Ok(()),
        }
    }

    fn open<W: ?Sized + std::io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> std::io::Result<()> {
        self.depth += 1;
        self.has_items = false;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + std::io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> std::io::Result<()> {
        self.depth -= 1;
        if self.has_items {
            self.new_line(out)?;
        }
        self.has_items = true;
        out.write_all(bracket)
    }
}

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.open(out, b"[")
    }
    fn end_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.close(out, b"]")
    }
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        self.begin_item(out, first)
    }
    fn end_array_value<W: ?Sized + std::io::Write>(&mut self, _: &mut W) -> std::io::Result<()> {
        self.has_items = true;
        Ok(())
    }
    fn begin_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.open(out, b"{")
    }
    fn end_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.close(out, b"}")
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        self.begin_item(out, first)
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(self.key.as_bytes())
    }
    fn end_object_value<W: ?Sized + std::io::Write>(&mut self, _: &mut W) -> std::io::Result<()> {
        self.has_items = true;
        Ok(())
    }
}

/// C's `strftime` in UTC, for the directives that chat templates use.
fn strftime(format: &str, unix_seconds: u64) -> Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (unix_seconds / 86400, unix_seconds % 86400);
    let (year, month, day) = civil_date(days);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &format!("{:02}", year % 100),
            Some('m') => out += &format!("{month:02}"),
            Some('d') => out += &format!("{day:02}"),
            Some('B') => out += month_name,
            Some('b') => out += &month_name[..3],
            Some('A') => out += day_name,
            Some('a') => out += &day_name[..3],
            Some('H') => out += &format!("{:02}", second / 3600),
            Some('M') => out += &format!("{:02}", second / 60 % 60),
            Some('S') => out += &format!("{:02}", second % 60),
            Some('%') => out.push('%'),
            other => {
                let directive = other.map(String::from).unwrap_or_default();
                let message = format!("strftime_now: %{directive} is not supported");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    Ok(out)
}

/// Days since 1970-01-01 to (year, month, day); Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let value: serde_json::Value =
            serde_json::from_str(r#"{"b": [1, 2.5, "<é\"\n>"], "a": {}, "c": [], "d": [[], {"x": null}]}"#).unwrap();
        environment(source)?
            .get_template(TEMPLATE)?
            .render(minijinja::context! { x => minijinja::value::Serde(&value) })
    }

    /// Expected texts from Python's json.dumps with the same options.
    #[test]
    fn tojson_is_pythons() {
        assert_eq!(
            render("{{ x | tojson }}").unwrap(),
            r#"{"b": [1, 2.5, "<é\"\n>"], "a": {}, "c": [], "d": [[], {"x": null}]}"#
        );
        assert_eq!(
            render("{{ x | tojson(sort_keys=true, separators=[',', ':']) }}").unwrap(),
            r#"{"a":{},"b":[1,2.5,"<é\"\n>"],"c":[],"d":[[],{"x":null}]}"#
        );
        let indented = "{\n  \"b\": [\n    1,\n    2.5,\n    \"<é\\\"\\n>\"\n  ],\n  \"a\": {},\n  \"c\": [],\n  \
                        \"d\": [\n    [],\n    {\n      \"x\": null\n    }\n  ]\n}";
        assert_eq!(render("{{ x | tojson(indent=2) }}").unwrap(), indented);
        assert!(render("{{ x | tojson(indent=70000) }}").is_err());
    }

    #[test]
    fn dates() {
        // date -u -d @1709210096
        assert_eq!(
            strftime("%A %a, %d %b %B %Y %y-%m %H:%M:%S %%", 1_709_210_096).unwrap(),
            "Thursday Thu, 29 Feb February 2024 24-02 12:34:56 %"
        );
        assert_eq!(strftime("%Y-%m-%d", 0).unwrap(), "1970-01-01");
        assert_eq!(strftime("%Y-%m-%d %a", 4_107_542_399).unwrap(), "2100-02-28 Sun");
        assert!(strftime("%Q", 0).is_err());
        assert!(render("{{ strftime_now('%d %b %Y') }}").unwrap().contains(" 20"));
    }

    #[test]
    fn hostile_templates_are_stopped() {
        let started = std::time::Instant::now();
        for source in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{{ 'x' * 9999999999 }}",
            "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        ] {
            assert!(render(source).is_err(), "{source}");
        }
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn like_transformers() {
        assert_eq!(render("{% if true %}\n  a\n  {% endif %}\nb").unwrap(), "  a\nb");
        assert_eq!(render("x {%- generation -%}\n a {% endgeneration %}\nb").unwrap(), "xa b");
        assert_eq!(render("x{% generation %}\na{% endgeneration %}\nb").unwrap(), "xab");
        assert_eq!(
            render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}").unwrap(),
            "01"
        );
        assert_eq!(render("{{ ' a,b '.strip().split(',')[-1] }}").unwrap(), "b");
        assert!(render("{{ raise_exception('no such role') }}").unwrap_err().to_string().contains("no such role"));
    }
}
