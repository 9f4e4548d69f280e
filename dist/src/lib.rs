//! Releases: archives, packages, an image and all that points to them, out of a program that is built already. `cargo xtask
//! dist` builds it and calls this.
//!
//! ```text
//! make ── elf        (what the program needs of a machine)
//!   ├──── materials  (what it is made of: SBOM, licences)
//!   ├──── archive    (tar.gz) ── packages (.deb, .rpm) ── image (OCI)
//!   └──── site       (install.sh, Homebrew formula, GitHub Action)
//! ```
//!
//! The same program, sources and time make the same files, byte for byte; the image also has the libraries of the machine
//! that makes it. Man pages, completions and the unit of systemd come out of the program itself: `coracle packaging`.

mod archive;
mod elf;
mod image;
mod materials;
mod packages;
mod site;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::archive::{File, gzip, tar};
use crate::elf::{Arch, Needs};
use crate::materials::Materials;
use crate::site::Build;

/// What it is, in a line.
const ABOUT: &str = "Kubernetes for one machine, in one program";

/// What it is, in a few.
const DESCRIPTION: &str = "\
An API server on an embedded store, a scheduler, a kubelet that drives
Docker, the controllers and a service proxy, behind the ordinary Kubernetes
API: use it with an unmodified kubectl.
";

/// What stands behind the version in the names of files.
const OF_PROCESSORS: [&str; 5] = ["-x86_64-", "-aarch64-", "_amd64.", "_arm64.", "-1."];

/// What a release is made of and where it goes.
#[derive(Debug)]
pub struct Options {
    /// The repository.
    pub root: PathBuf,
    /// The program to release.
    pub binary: PathBuf,
    /// The same program for this machine, where the other is for another.
    pub local_binary: Option<PathBuf>,
    /// The folder to write to. What another processor's release has left there is part of the release.
    pub output: PathBuf,
    /// The time of all files, in seconds since 1970.
    pub time: u64,
    /// From 1, fast, to 9, small.
    pub compression: u32,
    /// The address that the files will have, without a slash at the end.
    pub base_url: Option<String>,
}

/// A program, and what is released with it.
struct Release {
    version: String,
    time: u64,
    compression: u32,
    program: Vec<u8>,
    needs: Needs,
    /// `LICENSE`, `README.md`, `THIRD-PARTY.txt`, and the files of `man/`, `completions/` and `systemd/`.
    files: Vec<File>,
}

impl Release {
    /// The files whose paths begin like this.
    fn of(&self, start: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.path.starts_with(start))
    }

    /// The time as RFC 3339 has it.
    fn date(&self) -> Result<String> {
        let seconds = i64::try_from(self.time).context("there is no such time")?;
        Ok(Timestamp::from_second(seconds)?.to_string())
    }

    /// The version as packages have it, for which a release candidate comes before the release.
    fn package_version(&self) -> String {
        self.version.replace('-', "~")
    }
}

/// Makes a release, and returns what was written.
///
/// # Errors
/// When the program is not one that can be released, or something cannot be read, run or written.
pub fn make(options: &Options) -> Result<Vec<PathBuf>> {
    if let Some(url) = &options.base_url {
        site::check_address(url)?;
    }
    let binary = &options.binary;
    let program = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let needs = Needs::of(&program).with_context(|| format!("{} cannot be released", binary.display()))?;
    let is_local = needs.arch.name() == std::env::consts::ARCH;
    let local = options.local_binary.as_ref().or_else(|| is_local.then_some(binary)).with_context(|| {
        format!(
            "{} is for {}; say which program writes its manual here: --local-binary",
            binary.display(),
            needs.arch.name()
        )
    })?;
    let version = said(Command::new(local).arg("--version"))?;
    let version = version.trim().strip_prefix("coracle ").context("the program is not coracle")?.to_owned();
    let materials = Materials::of(&options.root, needs.arch)?;
    let mut files = packaging(local)?;
    for name in ["LICENSE", "README.md"] {
        let path = options.root.join(name);
        files.push(File::new(name, fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?));
    }
    files.push(File::new("THIRD-PARTY.txt", materials.licences()?));
    let (time, compression) = (options.time, options.compression);
    let release = Release { version, time, compression, program, needs, files };

    let output = Output::new(&options.output, &release.version)?;
    let (arch, version) = (release.needs.arch, &release.version);
    let stem = format!("coracle-{version}-{}-linux", arch.name());
    output.write(&File::new(format!("{stem}.tar.gz"), archive(&release, &stem)?))?;
    let package = release.package_version();
    output.write(&File::new(format!("coracle_{package}_{}.deb", arch.short()), packages::deb(&release)?))?;
    output.write(&File::new(format!("coracle-{package}-1.{}.rpm", arch.name()), packages::rpm(&release)?))?;
    output.write(&File::new(format!("{stem}.cdx.json"), materials.bill(&release)?))?;
    // The libraries of another processor are not on this machine.
    let libraries = match (release.needs.versions.is_empty(), is_local) {
        (true, _) => Some(Vec::new()),
        (false, true) => Some(image::libraries(binary)?),
        (false, false) => None,
    };
    if let Some(libraries) = libraries {
        output.write(&File::new(format!("{stem}.oci.tar"), image::image(&release, &libraries)?))?;
    }
    let mut builds = Vec::new();
    for arch in [Arch::X86, Arch::Arm].map(Arch::name) {
        if let Some(sum) = output.sum(&format!("coracle-{version}-{arch}-linux.tar.gz"))? {
            builds.push(Build { arch, sum });
        }
    }
    for file in site::files(version, options.base_url.as_deref(), &builds)? {
        output.write(&file)?;
    }
    output.finish()
}

/// The archive for those who unpack it themselves.
fn archive(release: &Release, stem: &str) -> Result<Vec<u8>> {
    let mut files = vec![File::program("coracle", release.program.clone())];
    files.extend(release.files.iter().cloned());
    gzip(&tar(&format!("{stem}/"), &files, release.time)?, release.compression)
}

/// What the program writes for those who package it.
fn packaging(program: &Path) -> Result<Vec<File>> {
    let folder = tempfile::tempdir()?;
    said(Command::new(program).arg("packaging").arg(folder.path()))?;
    let mut files = Vec::new();
    for name in ["completions", "man", "systemd"] {
        for entry in fs::read_dir(folder.path().join(name))? {
            let entry = entry?;
            let path = format!("{name}/{}", entry.file_name().to_string_lossy());
            files.push(File::new(path, fs::read(entry.path())?));
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{} fails: {}", command.get_program().display(), error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A checksum as people compare it.
fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder of a release.
struct Output<'a> {
    folder: &'a Path,
    version: &'a str,
}

impl<'a> Output<'a> {
    fn new(folder: &'a Path, version: &'a str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, version })
    }

    fn write(&self, file: &File) -> Result<()> {
        let path = self.folder.join(&file.path);
        let written = fs::write(&path, &file.content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(file.mode())));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// The checksum of a file, if it is there.
    fn sum(&self, name: &str) -> Result<Option<String>> {
        match fs::read(self.folder.join(name)) {
            Ok(content) => Ok(Some(hash(&content))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {name}")),
        }
    }

    /// Writes the checksums of all that is of this version, and returns it.
    fn finish(&self) -> Result<Vec<PathBuf>> {
        let versions = [self.version.to_owned(), self.version.replace('-', "~")];
        let is_ours = |name: &str| {
            let of_version = |version: &String| {
                let rest = name.strip_prefix("coracle").and_then(|rest| rest.get(1..)?.strip_prefix(version.as_str()));
                // What follows keeps a release apart from its candidates.
                rest.is_some_and(|rest| OF_PROCESSORS.iter().any(|start| rest.starts_with(start)))
            };
            versions.iter().any(of_version) || ["install.sh", "coracle.rb", "action.yml"].contains(&name)
        };
        let entries = fs::read_dir(self.folder)?.flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| is_ours(name));
        names.sort();
        let mut sums = String::new();
        for name in &names {
            let sum = self.sum(name)?.context("it was there a moment ago")?;
            sums.push_str(&format!("{sum}  {name}\n"));
        }
        self.write(&File::new("SHA256SUMS", sums))?;
        names.push("SHA256SUMS".to_owned());
        Ok(names.into_iter().map(|name| self.folder.join(name)).collect())
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::release;

    #[test]
    fn the_archive_is_the_same_each_time() {
        let release = release();
        let first = archive(&release, "coracle-1.2.3").expect("an archive");
        assert!(first == archive(&release, "coracle-1.2.3").expect("an archive"), "byte for byte");
        let later = Release { time: release.time + 1, ..testing::release() };
        assert!(first != archive(&later, "coracle-1.2.3").expect("an archive"), "the time is in it");
    }

    #[test]
    fn checksums_are_of_one_version() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = Output::new(folder.path(), "1.2.3-rc.1").expect("a folder");
        for name in [
            "coracle-1.2.3-rc.1-x86_64-linux.tar.gz",
            "coracle_1.2.3~rc.1_amd64.deb",
            "coracle-1.2.3~rc.1-1.x86_64.rpm",
            "install.sh",
            "coracle-1.2.2-x86_64-linux.tar.gz",
            "coracle-1.2.3-x86_64-linux.tar.gz",
            "coracle-1.2.3-rc.10-x86_64-linux.tar.gz",
            "notes",
        ] {
            output.write(&File::new(name, "x")).expect("written");
        }
        assert_eq!(output.finish().expect("written").len(), 5);
        let of_release = Output::new(folder.path(), "1.2.3").expect("a folder").finish().expect("written");
        assert_eq!(of_release.len(), 3, "the release, the script and the checksums: {of_release:?}");
        output.finish().expect("written");
        let sums = fs::read_to_string(folder.path().join("SHA256SUMS")).expect("readable");
        let names: Vec<&str> = sums.lines().filter_map(|line| Some(line.split_once("  ")?.1)).collect();
        let expected = [
            "coracle-1.2.3-rc.1-x86_64-linux.tar.gz",
            "coracle-1.2.3~rc.1-1.x86_64.rpm",
            "coracle_1.2.3~rc.1_amd64.deb",
            "install.sh",
        ];
        assert_eq!(names, expected);
        let sum = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        assert!(sums.starts_with(sum), "what sha256sum says of an x: {sums}");
    }
}
