//! The course: the script of each lesson, which does what its page says, and `coracle learn`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, thread};

use coracle_tests::{BUSYBOX, Cluster, example};

/// Lessons that get along with each other: they have namespaces of their own, and nodes that are only for them.
const BESIDE_EACH_OTHER: [&str; 9] = [
    "01-apply",
    "02-controllers",
    "03-scheduling",
    "04-services",
    "05-rolling-updates",
    "06-statefulsets",
    "07-autoscaling",
    "08-operators",
    "09-gangs",
];
/// The lesson that kills the control plane.
const ALONE: &str = "10-failure";
/// So many are run at once: most of their time they wait.
const AT_ONCE: usize = 3;

#[test]
fn every_lesson_does_what_its_page_says() {
    let cluster = Cluster::new();
    cluster.coracle(&["start", "--hpa-sync-period", "1s"]).ok();
    let path = path_with_programs(cluster.home());
    let failures: Vec<String> = thread::scope(|scope| {
        let course = |first: usize| {
            let (cluster, path) = (&cluster, &path);
            let lessons = BESIDE_EACH_OTHER.iter().skip(first).step_by(AT_ONCE);
            scope.spawn(move || lessons.filter_map(|lesson| failure(cluster, path, lesson)).collect::<Vec<_>>())
        };
        let running: Vec<_> = (0..AT_ONCE).map(course).collect();
        running.into_iter().flat_map(|lessons| lessons.join().expect("lessons end")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let failed = failure(&cluster, &path, ALONE);
    assert!(failed.is_none(), "{}", failed.unwrap_or_default());

    // Nothing is left of any of them.
    let namespaces = cluster.kubectl(&["get", "namespaces", "-o", "name"]).ok();
    assert!(!namespaces.contains("lesson"), "{namespaces}");
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"]).ok();
    assert_eq!(nodes.trim(), format!("node/{}", cluster.profile));
}

#[test]
fn every_lesson_is_run() {
    let mut lessons: Vec<String> = fs::read_dir(example("course"))
        .expect("the course is there")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    lessons.sort();
    let run: Vec<&str> = BESIDE_EACH_OTHER.into_iter().chain([ALONE]).collect();
    assert_eq!(lessons, run);
}

#[test]
fn pages_are_shown_in_the_terminal_and_run_where_the_reader_agrees() {
    let cluster = Cluster::new();
    let list = cluster.coracle(&["learn", "--lang", "en"]).ok();
    assert_eq!(list.lines().count(), 10, "{list}");
    assert!(list.starts_with(" 1  From apply to running\n"), "{list}");
    assert!(cluster.coracle(&["learn", "--lang", "zh"]).ok().starts_with(" 1  从 apply 到运行\n"));
    let why = cluster.coracle(&["learn", "11", "--lang", "en"]).fails();
    assert_eq!(why, "coracle: there is no lesson 11; there are 1 to 10, see: coracle learn\n");
    // With nobody at a terminal the page comes whole; that takes no cluster.
    let page = fs::read_to_string(example("course/02-controllers/README.md")).expect("a page");
    assert_eq!(cluster.coracle(&["learn", "2", "--lang", "en"]).ok().trim_end(), page.trim_end());

    // Somebody who agrees to nothing, and somebody who agrees to the first step before there is a cluster.
    let learn = |typed: &str| at_a_terminal(&cluster, "learn 2 --lang en", typed);
    let shown = learn("\n\nq\n");
    assert!(shown.contains("What a controller is") && shown.contains("[Enter: go on, r: run"), "{shown}");
    let refused = learn("\nr\nq\n");
    assert!(refused.contains("is not running; start it with: coracle start"), "{refused}");
    cluster.coracle(&["start"]).ok();
    let agreed = learn("\nr\nq\n");
    assert!(agreed.contains("deployment.apps/web created"), "{agreed}");
    assert!(
        agreed.contains("is there until you run:") && agreed.contains("kubectl delete namespace lesson-2"),
        "{agreed}"
    );
    let images = "{.spec.template.spec.containers[0].image}";
    let get = ["get", "deployment", "web", "-n", "lesson-2", "-o", &format!("jsonpath={images}")];
    assert_eq!(cluster.kubectl(&get).ok(), BUSYBOX);
}

/// A folder with `coracle` and `kubectl` in front of the others' folders: that is what a script runs.
fn path_with_programs(home: &Path) -> String {
    let bin = home.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    for (name, variable) in [("coracle", "CORACLE_BINARY"), ("kubectl", "CORACLE_KUBECTL")] {
        let Some(program) = env::var_os(variable).map(PathBuf::from) else { continue };
        if !bin.join(name).exists() {
            symlink(fs::canonicalize(program).expect("the program is there"), bin.join(name)).expect("a link");
        }
    }
    format!("{}:{}", bin.display(), env::var("PATH").expect("a PATH"))
}

/// Runs a lesson; what it printed, if it failed.
fn failure(cluster: &Cluster, path: &str, lesson: &str) -> Option<String> {
    let script = example(&format!("course/{lesson}/lesson.sh"));
    let output = of_cluster(Command::new("sh").arg(script), cluster, path).output().expect("sh runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (!output.status.success()).then(|| format!("{lesson}\n{}{}", text(&output.stdout), text(&output.stderr)))
}

/// What the program prints on a terminal of its own into which this is typed.
fn at_a_terminal(cluster: &Cluster, arguments: &str, typed: &str) -> String {
    let path = path_with_programs(cluster.home());
    let program = format!("coracle {arguments}");
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--flush", "--command", &program, "/dev/null"]);
    let mut child = of_cluster(&mut command, cluster, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // The terminal keeps what is typed before it is asked for.
    std::io::Write::write_all(&mut stdin, typed.as_bytes()).expect("it can be typed into");
    let output = child.wait_with_output().expect("script ends");
    drop(stdin);
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

fn of_cluster<'a>(command: &'a mut Command, cluster: &Cluster, path: &str) -> &'a mut Command {
    command
        .env("PATH", path)
        .env("COURSE_IMAGE", BUSYBOX)
        .env("CORACLE_HOME", cluster.home().join("home"))
        .env("CORACLE_PROFILE", &cluster.profile)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HOME", cluster.home())
        .stdin(Stdio::null())
}
