//! Debian and Ubuntu packages. Nothing here runs unless something is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use crate::run::{command, run, stdout, succeeds};

/// Debian's release whose own Mesa is old enough to prefer the one of its backports.
const OLD_MESA_RELEASE: &str = "bookworm";
/// The file that this task adds on such a release.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/bindery-backports.sources";

/// Whether packages come from apt here.
pub fn has_apt() -> bool {
    cfg!(target_os = "linux") && succeeds(command("apt-get").arg("--version"))
}

/// Installs `packages`, from `release` (backports) when one is named.
pub fn install(packages: &[&str], release: Option<&str>) -> Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    UPDATED.get_or_init(|| {
        // One unreachable source of many must not stop the install.
        let _ = as_root(&["apt-get", "update", "-q"]).and_then(|mut update| run(&mut update));
    });
    let mut args = vec!["env", "DEBIAN_FRONTEND=noninteractive"];
    args.extend(["apt-get", "install", "-y", "-q", "--no-install-recommends"]);
    args.extend(release.iter().flat_map(|release| ["-t", release]));
    args.extend(packages);
    run(&mut as_root(&args)?)
}

/// Makes the backports of a release with an old Mesa known to apt, and names them; `None` where there is no need.
pub fn mesa_backports() -> Option<String> {
    let os_release = fs::read_to_string("/etc/os-release").ok()?;
    if !os_release.lines().any(|line| line == format!("VERSION_CODENAME={OLD_MESA_RELEASE}")) {
        return None;
    }
    let backports = format!("{OLD_MESA_RELEASE}-backports");
    let sources = sources();
    if !sources.iter().any(|text| text.contains(&backports)) {
        let stanza = sources.iter().find_map(|text| backports_stanza(text))?;
        println!("adding {backports} to apt's sources, for its newer Mesa: {BACKPORTS_FILE}");
        let script = format!("printf '%s' \"$1\" > {BACKPORTS_FILE}");
        run(&mut as_root(&["sh", "-c", &script, "sh", &stanza]).ok()?).ok()?;
    }
    Some(backports)
}

/// The backports' entry, copied from the release's own so that it uses the same mirror and key.
fn backports_stanza(sources: &str) -> Option<String> {
    let names_release = |line: &str| line.split_whitespace().any(|word| word == OLD_MESA_RELEASE);
    let of_release = |stanza: &&str| stanza.lines().any(|line| line.starts_with("Suites:") && names_release(line));
    if let Some(stanza) = sources.split("\n\n").find(of_release) {
        let lines = stanza.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let lines = lines.map(|line| match line.starts_with("Suites:") {
            true => format!("Suites: {OLD_MESA_RELEASE}-backports\n"),
            false => format!("{line}\n"),
        });
        return Some(lines.collect());
    }
    // The older one-line form: deb [options] URI suite components.
    let line = sources.lines().find(|line| line.starts_with("deb ") && names_release(line))?;
    let uri = line.split_whitespace().find(|word| word.contains("://"))?;
    Some(format!(
        "Types: deb\nURIs: {uri}\nSuites: {OLD_MESA_RELEASE}-backports\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    ))
}

/// The texts of apt's source lists.
fn sources() -> Vec<String> {
    let in_folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let read = |path: PathBuf| {
        let name = path.extension().unwrap_or_default();
        if name == "list" || name == "sources" { fs::read_to_string(path).ok() } else { None }
    };
    in_folder.chain([Path::new("/etc/apt/sources.list").to_owned()]).filter_map(read).collect()
}

/// Runs a command as root.
pub fn run_as_root(args: &[&str]) -> Result<()> {
    run(&mut as_root(args)?)
}

/// The command as root: as it is for root, else through sudo.
fn as_root(args: &[&str]) -> Result<Command> {
    if stdout(command("id").arg("-u")).as_deref() == Some("0") {
        let mut direct = command(args[0]);
        direct.args(&args[1..]);
        return Ok(direct);
    }
    if !succeeds(command("sudo").arg("--version")) {
        bail!("neither root nor sudo here; run as root: {}", args.join(" "));
    }
    let mut sudo = command("sudo");
    sudo.args(args);
    Ok(sudo)
}

#[cfg(test)]
mod tests {
    use super::backports_stanza;

    #[test]
    fn backports_use_the_releases_own_mirror() {
        let deb822 = "Types: deb\n# note\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://mirror/security\n\
                      Suites: bookworm-security\n";
        let wanted = "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm-backports\nComponents: main\n\
                      Signed-By: /k.gpg\n";
        assert_eq!(backports_stanza(deb822).as_deref(), Some(wanted));

        let one_line = "deb http://mirror/security bookworm-security main\ndeb http://mirror/debian bookworm main\n";
        let stanza = backports_stanza(one_line).unwrap();
        assert!(stanza.contains("URIs: http://mirror/debian\nSuites: bookworm-backports\n"), "{stanza}");

        assert_eq!(backports_stanza("deb http://mirror/ubuntu noble main\n"), None);
    }
}
