//! Packages for Debian's family (deb(5)) and for Fedora's and SUSE's (RPM).

use anyhow::{Context, Result};
use rpm::{BuildConfig, CompressionWithLevel, Dependency, FileOptions, PackageBuilder};

use crate::archive::{File, gzip, tar};
use crate::{ABOUT, DESCRIPTION, Release};

/// What a cluster wants on its machine, as Debian calls it. Without privileges all but Docker is in a container of its own.
const DEB_RECOMMENDED: &str = "docker.io | docker-ce, nftables, iproute2, conntrack";

/// The same as Fedora and SUSE call it; their Dockers have no name in common.
const RPM_RECOMMENDED: [&str; 3] = ["nftables", "/usr/sbin/ip", "conntrack-tools"];

/// Who answers for the packages.
const MAINTAINER: &str = "The coracle authors";

/// Where the families' policies differ.
struct Places {
    zsh: &'static str,
    licence: &'static str,
}

/// The files of a package, which are where all of its family have theirs.
fn files(release: &Release, places: &Places) -> Result<Vec<File>> {
    let mut files = vec![File::program("usr/bin/coracle", release.program.clone())];
    for page in release.of("man/") {
        let name = page.path.trim_start_matches("man/");
        files.push(File::new(format!("usr/share/man/man1/{name}.gz"), gzip(&page.content, release.compression)?));
    }
    let places = [
        ("completions/coracle.bash", "usr/share/bash-completion/completions/coracle"),
        ("completions/_coracle", places.zsh),
        ("completions/coracle.fish", "usr/share/fish/vendor_completions.d/coracle.fish"),
        ("systemd/coracle@.service", "usr/lib/systemd/user/coracle@.service"),
        ("LICENSE", places.licence),
        ("README.md", "usr/share/doc/coracle/README.md"),
        ("THIRD-PARTY.txt", "usr/share/doc/coracle/THIRD-PARTY.txt"),
    ];
    for (from, to) in places {
        let file = release.of(from).next().with_context(|| format!("the release has no {from}"))?;
        files.push(File { path: to.to_owned(), ..file.clone() });
    }
    Ok(files)
}

/// A package for Debian and what comes from it.
pub(crate) fn deb(release: &Release) -> Result<Vec<u8>> {
    let places =
        Places { zsh: "usr/share/zsh/vendor-completions/_coracle", licence: "usr/share/doc/coracle/copyright" };
    let files = files(release, &places)?;
    let size: usize = files.iter().map(|file| file.content.len().div_ceil(1024)).sum();
    let mut depends = Vec::new();
    if let Some(glibc) = release.needs.glibc() {
        depends.push(format!("libc6 (>= {glibc})"));
    }
    if let Some(gcc) = release.needs.gcc() {
        depends.push("libgcc-s1".to_owned());
        depends.push(format!("libstdc++6 (>= {gcc})"));
    }
    let depends = if depends.is_empty() { String::new() } else { format!("Depends: {}\n", depends.join(", ")) };
    let control = format!(
        "Package: coracle\nVersion: {}\nArchitecture: {}\nMaintainer: {MAINTAINER}\nInstalled-Size: {size}\n\
         {depends}Recommends: {DEB_RECOMMENDED}\nSection: admin\nPriority: optional\n\
         Description: {ABOUT}\n{}",
        release.package_version(),
        release.needs.arch.short(),
        DESCRIPTION.lines().map(|line| format!(" {line}\n")).collect::<String>(),
    );
    let pack = |files: &[File]| gzip(&tar("./", files, release.time)?, release.compression);
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", pack(&[File::new("control", control)])?),
        ("data.tar.gz", pack(&files)?),
    ];
    Ok(ar(&members, release.time))
}

/// An archive of `ar`, as System V and GNU have it.
fn ar(members: &[(&str, Vec<u8>)], time: u64) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        archive.extend(format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, "100644").bytes());
        archive.extend(content);
        if size % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

/// A package for Fedora, SUSE and what comes from them.
pub(crate) fn rpm(release: &Release) -> Result<Vec<u8>> {
    let places = Places { zsh: "usr/share/zsh/site-functions/_coracle", licence: "usr/share/licenses/coracle/LICENSE" };
    let time = u32::try_from(release.time).context("RPM knows no such time")?;
    let config = BuildConfig::v4().source_date(time).compression(CompressionWithLevel::Gzip(release.compression));
    let version = release.package_version();
    let mut package = PackageBuilder::new("coracle", &version, "Apache-2.0", release.needs.arch.name(), ABOUT);
    package.using_config(config).description(DESCRIPTION).vendor(MAINTAINER).build_host("localhost");
    // As rpm's own generator names what a program asks of the dynamic linker.
    for (library, version) in &release.needs.versions {
        package.requires(Dependency::any(format!("{library}({version})(64bit)")));
    }
    for name in RPM_RECOMMENDED {
        package.recommends(Dependency::any(name));
    }
    let mut files = files(release, &places)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    for file in files {
        let mode = u16::try_from(file.mode()).context("a mode has 16 bits")?;
        let options = FileOptions::new(format!("/{}", file.path)).permissions(mode);
        let options = match file.path.split('/').nth(2) {
            Some("doc" | "man") => options.doc(),
            Some("licenses") => options.license(),
            _ => options,
        };
        package.with_file_contents(file.content, options)?;
    }
    let mut bytes = Vec::new();
    package.build()?.write(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::testing::{release, said};

    #[test]
    fn dpkg_reads_the_deb() {
        let release = release();
        let deb = deb(&release).expect("a package");
        assert_eq!(deb, super::deb(&release).expect("a package"), "byte for byte");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("coracle.deb");
        std::fs::write(&file, deb).expect("written");
        let contents = said(Command::new("dpkg-deb").arg("--contents").arg(&file));
        for line in [
            "-rwxr-xr-x root/root    LENGTH TIME ./usr/bin/coracle",
            "drwxr-xr-x root/root         0 TIME ./usr/lib/systemd/user/",
            "./usr/lib/systemd/user/coracle@.service",
            "./usr/share/man/man1/coracle.1.gz",
            "./usr/share/man/man1/coracle-start.1.gz",
            "./usr/share/bash-completion/completions/coracle",
            "./usr/share/zsh/vendor-completions/_coracle",
            "./usr/share/fish/vendor_completions.d/coracle.fish",
            "./usr/share/doc/coracle/copyright",
        ] {
            let line = line.replace("LENGTH", &release.program.len().to_string()).replace("TIME", "2023-11-14 22:13");
            let words: Vec<&str> = line.split_whitespace().collect();
            let found = contents.lines().any(|one| one.split_whitespace().collect::<Vec<_>>().ends_with(&words));
            assert!(found, "{line}\n{contents}");
        }
        let field = |name: &str| said(Command::new("dpkg-deb").arg("--field").arg(&file).arg(name)).trim().to_owned();
        assert_eq!([field("Package"), field("Version")], ["coracle", "1.2.3"]);
        assert_eq!(field("Architecture"), release.needs.arch.short());
        assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));
        assert!(field("Description").contains("one program\n "), "{}", field("Description"));
    }

    #[test]
    fn the_rpm_says_what_it_needs() {
        let release = release();
        let bytes = rpm(&release).expect("a package");
        assert!(bytes == rpm(&release).expect("a package"), "byte for byte");
        let package = rpm::Package::parse(&mut &bytes[..]).expect("an RPM");
        package.verify_digests().expect("its digests are right");
        let (metadata, arch) = (&package.metadata, release.needs.arch.name());
        assert_eq!(metadata.get_name().expect("a name"), "coracle");
        assert_eq!(metadata.get_version().expect("a version"), "1.2.3");
        assert_eq!(metadata.get_arch().expect("an architecture"), arch);
        let requires = metadata.get_requires().expect("requirements");
        let glibc = |name: &str| name.starts_with("libc.so.6(GLIBC_2.") && name.ends_with(")(64bit)");
        assert!(requires.iter().any(|one| glibc(&one.name)), "{requires:?}");
        let paths = metadata.get_file_paths().expect("paths");
        for path in
            ["/usr/bin/coracle", "/usr/share/zsh/site-functions/_coracle", "/usr/share/licenses/coracle/LICENSE"]
        {
            assert!(paths.iter().any(|one| one.as_path() == std::path::Path::new(path)), "{path}: {paths:?}");
        }
    }

    #[test]
    fn members_of_an_archive_begin_at_even_places() {
        let archive = ar(&[("one", b"x".to_vec()), ("two", b"yz".to_vec())], 7);
        assert_eq!(archive.len(), 8 + 60 + 2 + 60 + 2);
        assert_eq!(&archive[8 + 60 + 2..][..16], b"two             ");
    }
}
