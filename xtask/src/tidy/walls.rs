//! The table of walls in ARCHITECTURE.md, and whether the crates keep to it.

use anyhow::{Context, Result, ensure};

use super::Finding;
use super::metadata::Package;

/// Crates from outside that a crate names only if its row says so.
const GUARDED: [&str; 2] = ["rdkafka", "clap"];
/// What a pure crate never depends on.
const IMPURE: [&str; 8] =
    ["tokio", "sqlx", "rdkafka", "axum", "reqwest", "hyper", "rand", "getrandom"];

/// One row: a crate and what it may use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wall {
    pub(super) name: String,
    pub(super) folder: String,
    /// No clock, no randomness, no IO.
    pub(super) pure: bool,
    /// Knows the business: its matches name every case.
    pub(super) domain: bool,
    /// Names of crates; `foldstream-*` stands for all of that prefix, `any` for all.
    pub(super) may_use: Vec<String>,
}

impl Wall {
    fn allows(&self, dependency: &str) -> bool {
        self.may_use.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => dependency.starts_with(prefix),
            None => pattern == "any" || pattern == dependency,
        })
    }

    fn allows_all(&self) -> bool {
        self.may_use.iter().any(|pattern| pattern == "any")
    }
}

/// Reads the table between the markers: crate | folder | pure | may use.
pub(super) fn parse(architecture: &str) -> Result<Vec<Wall>> {
    let (_, rest) =
        architecture.split_once("<!-- walls -->").context("no <!-- walls --> marker")?;
    let (table, _) = rest.split_once("<!-- /walls -->").context("no <!-- /walls --> marker")?;
    let rows = table.lines().map(str::trim).filter(|line| line.starts_with('|')).skip(2);
    let walls: Vec<Wall> = rows.map(parse_row).collect::<Result<_>>()?;
    ensure!(!walls.is_empty(), "the table of walls is empty");
    Ok(walls)
}

fn parse_row(line: &str) -> Result<Wall> {
    let cells: Vec<String> =
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    let [name, folder, pure, may_use] = cells.as_slice() else {
        anyhow::bail!("a row of the walls has 4 cells: {line}");
    };
    let name = name.clone();
    let pure = match pure.as_str() {
        "pure" => true,
        "" => false,
        other => anyhow::bail!("{name}: pure or empty, not {other:?}"),
    };
    let may_use = may_use.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "–"));
    Ok(Wall {
        domain: pure && !name.starts_with("foldstream-"),
        folder: folder.trim_end_matches('/').to_owned(),
        pure,
        may_use: may_use.map(str::to_owned).collect(),
        name,
    })
}

pub(super) fn check(walls: &[Wall], packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for wall in walls {
        if !packages.iter().any(|package| package.name == wall.name) {
            let text = format!("the table of walls names {}, which is no crate", wall.name);
            findings.push(Finding::new("ARCHITECTURE.md", text));
        }
    }
    for package in packages {
        let place = format!("{}/Cargo.toml", package.folder);
        let Some(wall) = walls.iter().find(|wall| wall.name == package.name) else {
            let text = format!("{} has no row in the table of walls", package.name);
            findings.push(Finding::new("ARCHITECTURE.md", text));
            continue;
        };
        if wall.folder != package.folder {
            let text = format!("the table of walls says it lies in {}", wall.folder);
            findings.push(Finding::new(&place, text));
        }
        let texts = dependencies(wall, package, packages);
        findings.extend(texts.into_iter().map(|text| Finding::new(&place, text)));
    }
    findings
}

fn dependencies(wall: &Wall, package: &Package, packages: &[Package]) -> Vec<String> {
    let mut texts = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let ours = packages.iter().any(|package| package.name == name);
        // Tests may reach further than the crate itself.
        let for_tests = dependency.kind.as_deref() == Some("dev");
        let climbs =
            wall.name.starts_with("foldstream") && name.starts_with("shop") && !wall.allows_all();
        if ours && !for_tests && climbs {
            texts.push(format!("{} is the platform and may not know {name}", wall.name));
        } else if ours && !for_tests && !wall.allows(name) {
            texts.push(format!("{} may not use {name}", wall.name));
        }
        if wall.pure && !for_tests && IMPURE.contains(&name) {
            texts.push(format!("{} is pure and may not use {name}", wall.name));
        }
        // `any` means any of ours.
        let named = wall.may_use.iter().any(|pattern| pattern == name);
        if GUARDED.contains(&name) && !named {
            texts.push(format!("{} may not name {name}", wall.name));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "text\n<!-- walls -->\n| crate | folder | pure | may use |\n|--|--|--|--|\n\
        | `foldstream-core` | `core/` | pure | – |\n\
        | `foldstream-kafka` | `event-store/kafka/` | | foldstream-core, rdkafka |\n\
        | `foldstream` | `app/` | | foldstream-*, clap |\n\
        | `shop-rules` | `rules/` | pure | foldstream-core |\n\
        | `benches` | `benches/` | | any |\n<!-- /walls -->\n";

    fn found(planted: &[Package]) -> Vec<String> {
        let walls = parse(TABLE).unwrap();
        check(&walls, planted).into_iter().map(|finding| finding.text).collect()
    }

    fn with(name: &str, folder: &str, dependencies: &[(&str, Option<&str>)]) -> Vec<Package> {
        let mut all: Vec<Package> = [
            ("foldstream-core", "core"),
            ("foldstream-kafka", "event-store/kafka"),
            ("foldstream", "app"),
            ("shop-rules", "rules"),
            ("benches", "benches"),
        ]
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(name, folder)| Package::planted(name, folder, &[]))
        .collect();
        all.push(Package::planted(name, folder, dependencies));
        all
    }

    #[test]
    fn the_table_is_read() {
        let walls = parse(TABLE).unwrap();
        assert_eq!(walls[0].folder, "core");
        assert!(walls[0].pure && !walls[0].domain);
        assert!(walls[3].pure && walls[3].domain);
        assert!(walls[2].allows("foldstream-kafka") && !walls[2].allows("shop-rules"));
        assert!(parse("no markers").is_err());
    }

    #[test]
    fn crates_that_keep_to_it_are_left_alone() {
        assert_eq!(
            found(&with(
                "foldstream-kafka",
                "event-store/kafka",
                &[("foldstream-core", None), ("rdkafka", None), ("shop-rules", Some("dev")),]
            )),
            [""; 0]
        );
        assert_eq!(found(&with("benches", "benches", &[("shop-rules", None)])), [""; 0]);
    }

    #[test]
    fn each_kind_of_climbing_is_found() {
        let cases: [(&str, &str, &str, &str); 7] = [
            ("foldstream-kafka", "event-store/kafka", "foldstream", "may not use foldstream"),
            ("foldstream", "app", "shop-rules", "may not know shop-rules"),
            ("shop-rules", "rules", "foldstream-kafka", "may not use foldstream-kafka"),
            ("shop-rules", "rules", "tokio", "is pure and may not use tokio"),
            ("benches", "benches", "rdkafka", "may not name rdkafka"),
            ("foldstream-core", "core", "clap", "may not name clap"),
            ("foldstream-core", "elsewhere", "serde", "says it lies in core"),
        ];
        for (name, folder, dependency, wanted) in cases {
            let texts = found(&with(name, folder, &[(dependency, None)]));
            assert!(matches!(texts.as_slice(), [text] if text.contains(wanted)), "{texts:?}");
        }
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_found() {
        let mut planted = with("benches", "benches", &[]);
        planted.push(Package::planted("new", "new", &[]));
        assert_eq!(found(&planted), ["new has no row in the table of walls"]);
        planted.retain(|package| package.name != "new" && package.name != "benches");
        assert_eq!(found(&planted), ["the table of walls names benches, which is no crate"]);
    }
}
