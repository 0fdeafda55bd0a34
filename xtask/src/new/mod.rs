//! `cargo x new`: the files of a new aggregate or read model, and the lines that register it.

mod edit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use edit::Edit;

/// `new aggregate|read-model NAME [--root DIR]`.
pub(crate) fn run(mut args: Vec<String>) -> Result<ExitCode> {
    let mut root = crate::root()?;
    if let Some(at) = args.iter().position(|arg| arg == "--root") {
        ensure!(at + 1 < args.len(), "--root needs a directory");
        root = PathBuf::from(args.remove(at + 1));
        args.remove(at);
    }
    let [kind, name] = args.as_slice() else {
        bail!("usage: cargo x new aggregate|read-model NAME [--root DIR]");
    };
    match kind.as_str() {
        "aggregate" => aggregate(&root, &Words::parse(name)?)?,
        "read-model" => read_model(&root, &Words::parse(name)?)?,
        other => bail!("there is no kind {other:?}: aggregate or read-model"),
    }
    Ok(ExitCode::SUCCESS)
}

fn aggregate(root: &Path, plural: &Words) -> Result<()> {
    let singular = plural.singular()?;
    let (module, name) = (plural.snake(), singular.camel());
    let fill = |template: &str| {
        template
            .replace("{{Singular}}", &name)
            .replace("{{singular}}", &singular.snake())
            .replace("{{singular-kebab}}", &singular.kebab())
            .replace("{{plural}}", &plural.kebab())
            .replace("{{module}}", &module)
            .replace("{{Words}}", &plural.sentence())
            .replace("{{words}}", &plural.0.join(" "))
    };
    let topic =
        format!("        ({module}::{name}Event::TOPIC, {module}::{name}Event::schemas()),");
    let rules = "command-services/invoicing/src";
    let changes = [
        Change::new(format!("schemas/src/{module}.rs"), fill(include_str!("schema.txt"))),
        Change::edit(
            "schemas/src/lib.rs",
            [Edit::sorted(format!("pub mod {module};")), Edit::in_list("pub fn topics()", topic)],
        ),
        Change::new(format!("{rules}/{module}.rs"), fill(include_str!("aggregate.txt"))),
        Change::edit(
            format!("{rules}/lib.rs"),
            [
                Edit::sorted(format!("mod {module};")),
                Edit::sorted(format!("pub use {module}::{{{name}, {name}Rejection}};")),
            ],
        ),
        Change::edit(wiring(root)?, [Edit::chained(CALL, format!("shop_invoicing::{name}"))]),
    ];
    apply(root, &changes)?;
    println!("next: write the rules, then `cargo x schemas` and `cargo x test {module}`");
    Ok(())
}

/// How an aggregate is given to its service.
const CALL: &str = ".aggregate::<";

/// The file of the binary that gives aggregates to services.
fn wiring(root: &Path) -> Result<PathBuf> {
    let folder = Path::new("shop/src");
    let list = fs::read_dir(root.join(folder)).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> =
        list.flatten().map(|entry| folder.join(entry.file_name())).collect();
    files.sort();
    let wires =
        |file: &PathBuf| fs::read_to_string(root.join(file)).is_ok_and(|t| t.contains(CALL));
    files.into_iter().find(wires).with_context(|| format!("no file in shop/src holds {CALL}"))
}

fn read_model(root: &Path, name: &Words) -> Result<()> {
    let (module, camel) = (name.snake(), name.camel());
    let text = include_str!("read_model.txt")
        .replace("{{Name}}", &camel)
        .replace("{{module}}", &module)
        .replace("{{Words}}", &name.sentence());
    let registration = format!("        read_model::<{module}::{camel}>(),");
    let changes = [
        Change::new(format!("projections/shop/src/{module}.rs"), text),
        Change::edit(
            "projections/shop/src/lib.rs",
            [
                Edit::sorted(format!("pub mod {module};")),
                Edit::in_list("pub fn all()", registration),
            ],
        ),
    ];
    apply(root, &changes)?;
    println!("next: write columns and fold, then `cargo x test {module}`");
    Ok(())
}

/// A file to write or to change.
struct Change {
    path: PathBuf,
    what: What,
}

enum What {
    Write(String),
    Edit(Vec<Edit>),
}

impl Change {
    fn new(path: String, text: String) -> Self {
        Self { path: path.into(), what: What::Write(text) }
    }

    fn edit(path: impl Into<PathBuf>, edits: impl IntoIterator<Item = Edit>) -> Self {
        Self { path: path.into(), what: What::Edit(edits.into_iter().collect()) }
    }
}

/// Works everything out before the first file is touched: all of it happens, or nothing.
fn apply(root: &Path, changes: &[Change]) -> Result<()> {
    let mut texts = Vec::new();
    for Change { path, what } in changes {
        let full = root.join(path);
        let text = match what {
            What::Write(_) if full.exists() => bail!("{} is there already", path.display()),
            What::Write(text) => text.clone(),
            What::Edit(edits) => {
                let text = fs::read_to_string(&full).with_context(|| path.display().to_string())?;
                let edited = edits.iter().try_fold(text, |text, edit| edit.apply(&text));
                edited.with_context(|| path.display().to_string())?
            }
        };
        texts.push((full, path, text));
    }
    for (full, path, text) in &texts {
        fs::write(full, text).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    let files = texts.iter().map(|(full, ..)| full);
    let formatted = Command::new("rustfmt").args(["--edition", "2024"]).args(files).status();
    ensure!(formatted.is_ok_and(|status| status.success()), "rustfmt failed: cargo fmt --all");
    Ok(())
}

/// A name in lower-case words.
struct Words(Vec<String>);

impl Words {
    fn parse(name: &str) -> Result<Self> {
        let words: Vec<String> = name.split(['-', '_']).map(str::to_owned).collect();
        let fine = |word: &String| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        ensure!(
            words.iter().all(fine) && name.len() <= 40,
            "a name is lower-case words joined by - or _, at most 40 characters: {name:?} is not"
        );
        Ok(Self(words))
    }

    /// One of what the name says many of: `gift-cards` → `gift-card`.
    fn singular(&self) -> Result<Self> {
        let mut words = self.0.clone();
        let last = words.last_mut().context("a name has words")?;
        *last = match last.as_str() {
            word if word.ends_with("ies") => format!("{}y", &word[..word.len() - 3]),
            word if ["sses", "xes", "ches", "shes"].iter().any(|end| word.ends_with(end)) => {
                word[..word.len() - 2].to_owned()
            }
            word if word.len() > 1 && word.ends_with('s') && !word.ends_with("ss") => {
                word[..word.len() - 1].to_owned()
            }
            word => bail!("an aggregate is named in the plural, as its topic is: {word:?} is not"),
        };
        Ok(Self(words))
    }

    fn snake(&self) -> String {
        self.0.join("_")
    }

    fn kebab(&self) -> String {
        self.0.join("-")
    }

    fn camel(&self) -> String {
        self.0.iter().map(|word| capital(word)).collect()
    }

    fn sentence(&self) -> String {
        capital(&self.0.join(" "))
    }
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(text.len().min(1));
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_turned_as_the_code_wants_them() {
        let name = Words::parse("gift-cards").unwrap();
        assert_eq!(name.snake(), "gift_cards");
        assert_eq!(name.sentence(), "Gift cards");
        assert_eq!(name.singular().unwrap().camel(), "GiftCard");
        for (many, one) in [("entries", "entry"), ("boxes", "box"), ("invoices", "invoice")] {
            assert_eq!(Words::parse(many).unwrap().singular().unwrap().kebab(), one);
        }
        assert!(Words::parse("payment").unwrap().singular().is_err());
        for bad in ["", "Gift", "a b", "a--b", "9a", "../x"] {
            assert!(Words::parse(bad).is_err(), "{bad:?}");
        }
    }
}
