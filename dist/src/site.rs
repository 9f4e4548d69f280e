//! What points to a release from elsewhere: a script that installs it, a Homebrew formula and a GitHub Action, out of
//! `dist/templates`, with its version, its address and the checksums of its archives.

use std::fmt::Write;

use anyhow::{Result, bail};

use crate::archive::File;

const INSTALL: &str = include_str!("../templates/install.sh");
const FORMULA: &str = include_str!("../templates/coracle.rb");
const ACTION: &str = include_str!("../templates/action.yml");

/// An archive of the release that is there.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    /// The processor's name.
    pub(crate) arch: &'static str,
    /// The archive's checksum.
    pub(crate) sum: String,
}

/// Refuses an address that would be something else in one of the files.
pub(crate) fn check_address(url: &str) -> Result<()> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~:/%+@".contains(letter);
    if !(url.starts_with("https://") || url.starts_with("http://")) || !url.chars().all(is_plain) || url.ends_with('/')
    {
        bail!("{url} is not the address of a folder, such as https://example.com/coracle/v1.0.0");
    }
    Ok(())
}

/// The files. Where nobody knows the address, the script is told it by who runs it, and there are no others.
pub(crate) fn files(version: &str, address: Option<&str>, builds: &[Build]) -> Result<Vec<File>> {
    let fill = |template: &str, urls: &str, cases: &str| {
        template
            .replace("@VERSION@", version)
            .replace("@BASE_URL@", address.unwrap_or_default())
            .replace("@BUILDS@\n", urls)
            .replace("@CASES@\n", cases)
    };
    let mut files = vec![File::program("install.sh", fill(INSTALL, "", ""))];
    let Some(address) = address else { return Ok(files) };
    let (mut urls, mut cases) = (String::new(), String::new());
    for Build { arch, sum } in builds {
        let processor = if *arch == "aarch64" { "arm" } else { "intel" };
        writeln!(urls, "    on_{processor} do")?;
        writeln!(urls, "      url \"{address}/coracle-{version}-{arch}-linux.tar.gz\"")?;
        writeln!(urls, "      sha256 \"{sum}\"\n    end")?;
        writeln!(cases, "          {arch}) sum={sum} ;;")?;
    }
    files.push(File::new("coracle.rb", fill(FORMULA, &urls, "")));
    files.push(File::new("action.yml", fill(ACTION, "", &cases)));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_name_each_build() {
        let builds = ["x86_64", "aarch64"].map(|arch| Build { arch, sum: format!("{arch}-sum") });
        let files = files("1.2.3", Some("https://example.com/v1.2.3"), &builds).expect("filled in");
        let text = |name: &str| {
            let file = files.iter().find(|file| file.path == name).expect(name);
            let text = String::from_utf8(file.content.clone()).expect("UTF-8");
            let is_open = ["@VERSION@", "@BASE_URL@", "@BUILDS@", "@CASES@"].iter().any(|name| text.contains(name));
            assert!(!is_open, "{text}");
            text
        };
        let formula = text("coracle.rb");
        for line in [
            "    on_intel do\n      url \"https://example.com/v1.2.3/coracle-1.2.3-x86_64-linux.tar.gz\"\n      sha256 \"x86_64-sum\"\n    end\n",
            "    on_arm do\n      url \"https://example.com/v1.2.3/coracle-1.2.3-aarch64-linux.tar.gz\"\n      sha256 \"aarch64-sum\"\n    end\n",
            "  version \"1.2.3\"\n",
        ] {
            assert!(formula.contains(line), "{line}\n{formula}");
        }
        let action = text("action.yml");
        assert!(
            action.contains("          x86_64) sum=x86_64-sum ;;\n          aarch64) sum=aarch64-sum ;;\n"),
            "{action}"
        );
        assert!(text("install.sh").contains("https://example.com/v1.2.3"));
    }

    #[test]
    fn without_an_address_there_is_the_script_alone() {
        let files = files("1.2.3", None, &[]).expect("filled in");
        assert_eq!(files.iter().map(|file| &file.path).collect::<Vec<_>>(), ["install.sh"]);
        assert!(files[0].is_program);
    }

    #[test]
    fn addresses_are_plain() {
        let check = |url: &str, good: bool| assert_eq!(check_address(url).is_ok(), good, "{url}");
        check("https://example.com/coracle/v1.0.0", true);
        check("http://127.0.0.1:8080", true);
        check("https://example.com/", false);
        check("ftp://example.com", false);
        check("https://example.com/$(reboot)", false);
        check("https://example.com/a'b", false);
        check("https://example.com/a\"b", false);
    }
}
