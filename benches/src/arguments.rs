//! The command line. By hand: two options and a name.

use crate::load::Plan;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
cargo x bench [NAME] [--json] [--seconds N] [--quick] [--case TEXT] [--pool N]
              [--writers N]

  NAME         one of those below; all of them without
  --json       one JSON object per case instead of a table
  --seconds N  each figure is measured for so long (default 8, quick 2)
  --quick      shorter, smaller, less exact
  --case TEXT  only cases whose name contains it
  --pool N     connections of the baselines' pool (default 32)
  --writers N  writers of our event store (default its own)
";

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) name: Option<String>,
    pub(crate) json: bool,
    pub(crate) quick: bool,
    pub(crate) seconds: Option<u64>,
    pub(crate) case: Option<String>,
    pub(crate) pool: Option<u32>,
    pub(crate) writers: Option<usize>,
}

impl Arguments {
    /// How long one figure is measured.
    pub(crate) fn plan(&self) -> Plan {
        let seconds = self.seconds.unwrap_or(if self.quick { 2 } else { 8 });
        let warm_up = Duration::from_millis(if self.quick { 500 } else { 1_500 });
        Plan { warm_up, measured: Duration::from_secs(seconds) }
    }
    /// Whether this case is asked for.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.case.as_ref().is_none_or(|text| case.contains(text.as_str()))
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Run(Arguments),
    Help,
}

/// Reads the arguments; the error is a sentence for the user.
pub(crate) fn read(
    arguments: impl Iterator<Item = String>,
    names: &[&str],
) -> Result<Asked, String> {
    let mut asked = Arguments::default();
    let mut rest = arguments;
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--json" => asked.json = true,
            "--quick" => asked.quick = true,
            "--seconds" => asked.seconds = Some(number("--seconds", &value()?, 3_600)?),
            "--pool" => asked.pool = Some(number("--pool", &value()?, 150)?),
            "--writers" => asked.writers = Some(number("--writers", &value()?, 64)?),
            "--case" => asked.case = Some(value()?),
            "--help" | "-h" => return Ok(Asked::Help),
            option if option.starts_with('-') => return Err(format!("unknown option `{option}`")),
            name if asked.name.is_some() => return Err(format!("one name at most, not `{name}`")),
            name if names.contains(&name) => asked.name = Some(name.to_owned()),
            name => {
                let known = names.join(", ");
                return Err(format!("there is no benchmark `{name}`; there are: {known}"));
            }
        }
    }
    Ok(Asked::Run(asked))
}

/// A number from 1 to `most`.
fn number<T: FromStr + PartialOrd + From<u8> + Display>(
    option: &str,
    text: &str,
    most: T,
) -> Result<T, String> {
    let found = text.parse().ok().filter(|number| (&T::from(1)..=&most).contains(&number));
    found.ok_or_else(|| format!("`{option}` is 1 to {most}, not `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Asked, String> {
        read(text.split_whitespace().map(str::to_owned), &["append", "relay"])
    }

    #[test]
    fn all_options_are_understood() {
        let Ok(Asked::Run(asked)) =
            of("relay --json --seconds 3 --quick --case x --pool 8 --writers 2")
        else {
            panic!("not understood");
        };
        let name = Some("relay".to_owned());
        let (seconds, case) = (Some(3), Some("x".to_owned()));
        let expected = Arguments {
            name,
            json: true,
            quick: true,
            seconds,
            case,
            pool: Some(8),
            writers: Some(2),
        };
        assert_eq!(asked, expected);
        assert_eq!(asked.plan().measured, Duration::from_secs(3));
        assert!(asked.wants("axb") && !asked.wants("ab"));
    }
    #[test]
    fn nothing_asks_for_everything() {
        assert_eq!(of(""), Ok(Asked::Run(Arguments::default())));
        assert!(Arguments::default().wants("any"));
        assert_eq!(of("append --help"), Ok(Asked::Help));
    }
    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("fold", "there is no benchmark `fold`; there are: append, relay"),
            ("append relay", "one name at most, not `relay`"),
            ("--fast", "unknown option `--fast`"),
            ("--seconds", "`--seconds` needs a value"),
            ("--seconds 0", "`--seconds` is 1 to 3600, not `0`"),
        ] {
            assert_eq!(of(text), Err(said.to_owned()));
        }
    }
}
