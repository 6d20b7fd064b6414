//! Numbers as people write them.

use std::fmt::Display;
use std::str::FromStr;

/// A count or a size, as vLLM takes them: plain, with a decimal suffix (`k`, `M`, `G`, `T`: powers of 1000) or a binary
/// one (`Ki`, `Mi`, `Gi`, `Ti`: powers of 1024); upper-case `K` is 1024, as there. A trailing `B` is allowed, and a
/// fraction before a suffix: `1.5G`.
pub(super) fn human_number(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not a number such as 4096, 500M, 1.5G or 2Gi");
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let factor: u64 = match suffix.strip_suffix(['B', 'b']).unwrap_or(suffix) {
        "" => 1,
        "k" => 1000,
        "m" | "M" => 1000_u64.pow(2),
        "g" | "G" => 1000_u64.pow(3),
        "t" | "T" => 1000_u64.pow(4),
        "K" | "ki" | "Ki" => 1 << 10,
        "mi" | "Mi" => 1 << 20,
        "gi" | "Gi" => 1 << 30,
        "ti" | "Ti" => 1 << 40,
        _ => return Err(refuse()),
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(refuse);
    }
    let value = digits.parse::<f64>().map_err(|_| refuse())? * factor as f64;
    if suffix.is_empty() || !(0.0..9e18).contains(&value) { Err(refuse()) } else { Ok(value as u64) }
}

/// Reads whole numbers of at least `least`.
pub(super) fn at_least<T: FromStr + PartialOrd + Display + Clone>(
    least: T,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| *number >= least);
        number.ok_or_else(|| format!("must be a whole number of at least {least}"))
    }
}

/// [`human_number`] that fits 32 bits: tokens and sequences.
pub(super) fn human_count(text: &str) -> Result<u32, String> {
    u32::try_from(human_number(text)?).map_err(|_| format!("{text:?} is too large"))
}

/// Gibibytes, as vLLM's `--swap-space` takes them, in bytes.
pub(super) fn gibibytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not a number of GiB such as 4 or 0.5");
    let gib = text.parse::<f64>().map_err(|_| refuse())?;
    if (0.0..=1e6).contains(&gib) { Ok((gib * f64::from(1 << 30)) as u64) } else { Err(refuse()) }
}

/// `3.2 GiB`, `98 MiB`, `512 B`.
pub(super) fn bytes(value: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| value >= *unit) {
        None => format!("{value} B"),
        Some((unit, name)) => {
            let scaled = value as f64 / *unit as f64;
            let decimals = usize::from(scaled < 10.0 && !value.is_multiple_of(*unit));
            format!("{scaled:.decimals$} {name}")
        }
    }
}

/// The day of a moment in seconds since 1970, as `2026-11-24`.
///
/// Days into years of 400 as Howard Hinnant's `civil_from_days` does it: years begin in March, so that the leap day is
/// the last.
pub(super) fn utc_date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_and_without_suffix() {
        let table = [
            ("0", 0),
            ("4096", 4096),
            ("8k", 8000),
            ("8K", 8192),
            ("8Ki", 8192),
            ("2M", 2_000_000),
            ("2Mi", 2 << 20),
            ("1.5G", 1_500_000_000),
            ("2GiB", 2 << 30),
            ("1GB", 1_000_000_000),
            ("1T", 1_000_000_000_000),
        ];
        for (text, value) in table {
            assert_eq!(human_number(text), Ok(value), "{text}");
        }
        for text in ["", "G", "-1", "1.5", "1..5G", "nan", "2X", "1e9", "99999999999T", "18446744073709551616", "1 G"] {
            assert!(human_number(text).is_err(), "{text}");
        }
        assert!(human_count("5G").is_err());
    }

    #[test]
    fn whole_numbers_have_a_least() {
        assert_eq!(at_least(1_u64)("1"), Ok(1));
        for text in ["0", "-1", "1.5", "", "18446744073709551616"] {
            assert_eq!(at_least(1_u64)(text), Err("must be a whole number of at least 1".to_owned()), "{text}");
        }
    }

    #[test]
    fn gibibytes_may_be_fractions() {
        assert_eq!(gibibytes("4"), Ok(4 << 30));
        assert_eq!(gibibytes("0.5"), Ok(1 << 29));
        assert_eq!(gibibytes("0"), Ok(0));
        for text in ["", "-1", "nan", "inf", "4G", "1e300"] {
            assert!(gibibytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let table = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_704_067_199, "2023-12-31")];
        for (seconds, date) in table {
            assert_eq!(utc_date(seconds), date);
        }
        assert_eq!(utc_date(1_709_164_800 + 86_400), "2024-03-01");
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 30), "3 GiB");
        assert_eq!(bytes((3 << 30) + (200 << 20)), "3.2 GiB");
        assert_eq!(bytes(98 << 20), "98 MiB");
    }
}
