//! What the documents tell people to paste works: every `sh` block after `<!-- run -->` is run.
//!
//! The addresses of a shop at its usual ports become those of the one that runs here, `shop` is on
//! the path, and the root of the checkout is the working directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use foldstream_testkit::{binary, eventually};
use system_tests::place::OFFSETS;
use system_tests::process::Process;
use system_tests::root;
use system_tests::shop::{Shop, shared};

const MARK: &str = "<!-- run -->";
const WITHIN: Duration = Duration::from_secs(60);
const USUAL_BASE: u16 = 7400;

#[derive(Debug, PartialEq)]
struct Block {
    file: PathBuf,
    line: usize,
    script: String,
}

/// The blocks to run of one document.
///
/// # Panics
/// A mark that no `sh` block follows: somebody thinks that it is run.
fn blocks(file: &Path, text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().collect();
    let marks = lines.iter().enumerate().filter(|(_, line)| line.trim() == MARK);
    marks
        .map(|(mark, _)| {
            let place = || format!("{}:{}", file.display(), mark + 1);
            let rest = lines.iter().enumerate().skip(mark + 1);
            let mut rest = rest.skip_while(|(_, line)| line.trim().is_empty());
            let first = rest.next().filter(|(_, line)| line.trim() == "```sh");
            let (first, _) = first.unwrap_or_else(|| panic!("{}: no block follows", place()));
            let length = rest.clone().position(|(_, line)| line.trim() == "```");
            let length = length.unwrap_or_else(|| panic!("{}: the block has no end", place()));
            let script = rest.take(length).map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
            Block { file: file.to_owned(), line: first + 1, script }
        })
        .collect()
}

fn documents(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(documents(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn with_ports_of(shop: &Shop, script: &str) -> String {
    OFFSETS.iter().fold(script.to_owned(), |script, offset| {
        let own = format!(":{}", shop.place.base + offset);
        script.replace(&format!(":{}", USUAL_BASE + offset), &own)
    })
}

#[tokio::test]
async fn what_the_documents_say_works() {
    let readme = root().join("README.md");
    let mut files = documents(&root().join("docs"));
    if readme.exists() {
        files.insert(0, readme.clone());
    }
    let mut all = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("documents are text");
        all.extend(blocks(file, &text));
    }
    let in_readme = all.iter().filter(|block| block.file == readme).count();
    assert!(in_readme > 0 || !readme.exists(), "the README shows nothing that is run here");
    let shop = shared().await;
    for block in &all {
        run(&shop, block).await;
    }
    println!("{} blocks ran", all.len());
}

async fn run(shop: &Shop, block: &Block) {
    let place = format!("{}:{}", block.file.display(), block.line);
    let binaries = binary("shop").parent().map(Path::to_owned).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", &with_ports_of(shop, &block.script)])
        .env("PATH", format!("{}:{path}", binaries.display()))
        .env("ANALYST", &shop.ready().analyst)
        .current_dir(root());
    let log = shop.place.dir().join("document.log");
    let _ = fs::remove_file(&log);
    let process = Process::start(&place, command, &log);
    let status = eventually(WITHIN, &place, async || process.ended()).await;
    assert!(status.success(), "{place}: {status}\n{:?}\n{}", process.output(), process.stderr());
}

#[test]
fn only_marked_blocks_are_run() {
    let text = "\
        ```sh\nrm -rf /\n```\n\
        <!-- run -->\n\n```sh\ncurl a |\n  jq .b\n```\n\
        ```json\n{}\n```\n\
        <!-- run -->\n```sh\ntrue\n```\n";
    let found = blocks(Path::new("x.md"), text);
    let scripts: Vec<&str> = found.iter().map(|block| block.script.as_str()).collect();
    assert_eq!(scripts, ["curl a |\n  jq .b", "true"]);
    assert_eq!(found[0].line, 6);
}

#[test]
#[should_panic(expected = "no block follows")]
fn a_mark_without_a_block_is_a_mistake() {
    drop(blocks(Path::new("x.md"), "<!-- run -->\n```json\n{}\n```\n"));
}
