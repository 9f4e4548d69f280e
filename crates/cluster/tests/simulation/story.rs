//! What the user does, what breaks meanwhile, and how it has to end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_cluster::addons;
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::sleep;

use crate::faults::Faults;
use crate::judge::Judge;
use crate::objects::{self, AGENT, DB, QUOTA, WEB, amount, gang_of, gpus, image, is_active, is_bound, is_ready, owner};
use crate::world::{Component, World};

/// So often the user does something.
const DEEDS: usize = 30;
/// Pods that the quota allows: enough for the end, too few for all that is asked for on the way.
const PODS: usize = 26 + PLAIN + GPU_NODES;
const PLAIN: usize = 4;
const GPU_NODES: usize = 2;
const CARDS: usize = 4;
/// In what time all has to be as asked once nothing breaks any more: upstream looks again after five minutes at what it
/// believed to be hopeless.
const STORY_TIMEOUT: Duration = Duration::from_secs(360);

struct Story {
    world: World,
    judge: Judge,
    calm: bool,
    /// The latest image of each workload.
    images: BTreeMap<&'static str, usize>,
    jobs: usize,
    /// The gangs that were made, and how many members each has.
    gangs: BTreeMap<String, usize>,
    gangs_made: usize,
    /// The gangs of which the user took a part away: others may have its place now.
    maimed: BTreeSet<String>,
    deeds: Vec<String>,
}

/// Tells a story to its end; what came of it, or what was wrong.
pub(crate) async fn tell(seed: u64, calm: bool) -> Result<String, String> {
    let faults = Faults::new(seed * 2 + u64::from(calm));
    let world = World::new(faults).await;
    let judge = Judge::new(&world.registry, calm);
    let (images, gangs) = (BTreeMap::from([(WEB, 0), (DB, 0), (AGENT, 0)]), BTreeMap::new());
    let maimed = BTreeSet::new();
    let mut story = Story { world, judge, calm, images, jobs: 0, gangs, gangs_made: 0, maimed, deeds: Vec::new() };
    let told = story.tell().await;
    let told = told.map_err(|wrong| format!("{wrong}\nthe user's deeds:\n{}", story.deeds.join("\n")))?;
    story.world.end().await;
    Ok(told)
}

impl Story {
    async fn tell(&mut self) -> Result<String, String> {
        self.begin().await;
        self.converge("the beginning").await?;
        self.world.faults.set(true);
        for _ in 0..DEEDS {
            self.deed().await;
            self.breakage().await;
            let pause = match self.world.faults.chance.below(3) {
                0 => Duration::from_millis(20),
                1 => Duration::from_millis(500),
                _ => Duration::from_secs(5),
            };
            for _ in 0..3 {
                sleep(self.world.faults.chance.up_to(pause)).await;
                self.judge.catch_up(&self.world.registry).await?;
            }
        }
        self.world.faults.set(false);
        self.make_room().await;
        self.converge("the end").await?;
        let (revision, faults) = (self.world.registry.store().revision(), &self.world.faults.count);
        Ok(format!("{revision} revisions, {} faults", faults.load(std::sync::atomic::Ordering::Relaxed)))
    }

    async fn begin(&mut self) {
        let world = &mut self.world;
        world.create(objects::namespace()).await;
        world.create(objects::quota(PODS)).await;
        for definition in addons::find("gang").expect("an addon").definitions() {
            world.create(json!(definition)).await;
        }
        for number in 0..PLAIN {
            world.create(objects::node(&format!("plain-{number}"), 0)).await;
        }
        for number in 0..GPU_NODES {
            world.create(objects::node(&format!("gpu-{number}"), CARDS)).await;
        }
        for component in [Component::Paper, Component::Scheduler, Component::Controllers] {
            world.start(component);
        }
        world.create(objects::service(WEB)).await;
        world.create(objects::service(DB)).await;
        world.create(objects::deployment(4)).await;
        world.create(objects::stateful_set(3)).await;
        world.create(objects::daemon_set()).await;
    }

    /// The user does something.
    async fn deed(&mut self) {
        let chance = |bound: usize| self.world.faults.chance.below(bound);
        let choice = chance(if self.calm { 11 } else { 15 });
        let size = chance(8);
        let deed = match choice {
            0 | 1 => self.roll_out(WEB, "apps/v1/Deployment").await,
            2 | 3 => self.roll_out(DB, "apps/v1/StatefulSet").await,
            4 => self.scale(WEB, "apps/v1/Deployment", size + 1).await,
            5 => self.scale(DB, "apps/v1/StatefulSet", size.min(5)).await,
            6 => self.start_job(size).await,
            7 => self.make_gang(2 + size % 3).await,
            8 => self.drop_gang().await,
            9 => self.cordon(size).await,
            10 => self.roll_out(AGENT, "apps/v1/DaemonSet").await,
            11 | 12 => self.delete_pod(size).await,
            13 => self.replace_node(size % PLAIN).await,
            _ => self.delete_member().await,
        };
        let revision = self.world.registry.store().revision();
        self.deeds.push(format!("{revision:>6} {deed}"));
    }

    /// Something larger than a request breaks.
    async fn breakage(&mut self) {
        let choice = self.world.faults.chance.below(10);
        let component = match choice {
            0 => Component::Controllers,
            1 => Component::Scheduler,
            2 => Component::Paper,
            3 | 4 => {
                self.world.faults.cut_watches();
                return self.deeds.push("       all watches are cut".to_owned());
            }
            _ => return,
        };
        let revision = self.world.registry.store().revision();
        self.deeds.push(format!("{revision:>6} crash of {component:?}"));
        self.world.crash(component).await;
        sleep(self.world.faults.chance.up_to(Duration::from_secs(2))).await;
        self.world.start(component);
    }

    async fn roll_out(&mut self, app: &'static str, kind: &str) -> String {
        let image = self.images.entry(app).or_default();
        *image += 1;
        let image = *image;
        self.world.patch(kind, app, objects::with_image(app, image)).await;
        format!("{app} gets image {image}")
    }

    async fn scale(&mut self, app: &str, kind: &str, replicas: usize) -> String {
        self.world.patch(kind, app, json!({ "spec": { "replicas": replicas } })).await;
        format!("{app} is scaled to {replicas}")
    }

    async fn start_job(&mut self, size: usize) -> String {
        self.jobs += 1;
        let name = format!("job{}", self.jobs);
        let (completions, parallelism) = (size + 1, size % 3 + 1);
        self.world.create(objects::job(&name, completions, parallelism)).await;
        format!("{name} of {completions}, {parallelism} at once")
    }

    async fn make_gang(&mut self, members: usize) -> String {
        if self.gangs.len() == 4 {
            return "no gang".to_owned();
        }
        self.gangs_made += 1;
        let name = format!("gang{}", self.gangs_made);
        self.world.create(objects::gang(&name, members)).await;
        let mut made = 0;
        for number in 0..members {
            // A quota that is used up keeps some of the members away: then the gang is none.
            made += usize::from(self.world.try_create(objects::member(&name, number)).await);
        }
        self.gangs.insert(name.clone(), members);
        format!("{name} of {members}, {made} made")
    }

    async fn drop_gang(&mut self) -> String {
        let Some(name) = self.some_gang() else { return "no gang".to_owned() };
        let members = self.gangs.remove(&name).unwrap_or_default();
        for number in 0..members {
            self.world.delete("v1/Pod", &format!("{name}-{number}")).await;
        }
        self.world.delete("scheduling.x-k8s.io/v1alpha1/PodGroup", &name).await;
        format!("{name} goes")
    }

    fn some_gang(&self) -> Option<String> {
        let count = self.gangs.len();
        if count == 0 { None } else { self.gangs.keys().nth(self.world.faults.chance.below(count)).cloned() }
    }

    async fn cordon(&mut self, number: usize) -> String {
        let name = format!("plain-{}", number % PLAIN);
        let patch = match number / PLAIN {
            0 => json!({ "spec": { "unschedulable": true } }),
            _ => json!({ "spec": { "unschedulable": null, "taints": null } }),
        };
        self.world.patch("v1/Node", &name, patch.clone()).await;
        format!("{name}: {patch}")
    }

    async fn delete_pod(&mut self, number: usize) -> String {
        let of_controller = |pod: &&Pod| matches!(owner(pod), Some(("ReplicaSet" | "StatefulSet" | "DaemonSet", _)));
        let pods: Vec<&Pod> = self.judge.state.pods.values().filter(of_controller).collect();
        let Some(name) = pods.get(number % pods.len().max(1)).and_then(|pod| pod.metadata.name.clone()) else {
            return "no pod".to_owned();
        };
        self.judge.excused.insert(name.clone());
        self.world.delete("v1/Pod", &name).await;
        format!("{name} is deleted")
    }

    /// A member goes and comes back, as that of a workload would.
    async fn delete_member(&mut self) -> String {
        let Some(gang) = self.some_gang() else { return "no gang".to_owned() };
        self.maimed.insert(gang.clone());
        self.world.delete("v1/Pod", &format!("{gang}-0")).await;
        sleep(self.world.faults.chance.up_to(Duration::from_secs(1))).await;
        let back = self.world.try_create(objects::member(&gang, 0)).await;
        format!("{gang}-0 is deleted and made again: {back}")
    }

    async fn replace_node(&mut self, number: usize) -> String {
        let name = format!("plain-{number}");
        // Its pods go with it, in any order.
        self.judge.excused.extend(self.judge.state.pods.keys().cloned());
        self.world.delete("v1/Node", &name).await;
        sleep(self.world.faults.chance.up_to(Duration::from_secs(100))).await;
        self.world.create(objects::node(&name, 0)).await;
        format!("{name} is deleted and comes back")
    }

    /// What is asked for in the end fits.
    async fn make_room(&mut self) {
        for number in 0..PLAIN {
            let open = json!({ "spec": { "unschedulable": null } });
            self.world.patch("v1/Node", &format!("plain-{number}"), open).await;
        }
        self.scale(WEB, "apps/v1/Deployment", 4).await;
        self.scale(DB, "apps/v1/StatefulSet", 3).await;
        self.deeds.push(format!("{:>6} the end begins", self.world.registry.store().revision()));
    }

    /// Waits until all is as it was asked for.
    async fn converge(&mut self, what: &str) -> Result<(), String> {
        let started = tokio::time::Instant::now();
        let mut lacks = String::new();
        let mut since = None;
        while started.elapsed() < STORY_TIMEOUT {
            sleep(Duration::from_secs(1)).await;
            self.judge.catch_up(&self.world.registry).await?;
            match self.lacking() {
                // It stays as it is.
                None => match since {
                    None => since = Some(self.world.registry.store().revision()),
                    Some(_) if started.elapsed() < Duration::from_secs(20) => {}
                    Some(_) => return Ok(()),
                },
                Some(lacking) => (lacks, since) = (lacking, None),
            }
        }
        Err(self.judge.report(&format!("{what} never comes: {lacks}")))
    }

    /// What is not as it should be.
    fn lacking(&self) -> Option<String> {
        let state = &self.judge.state;
        let of = |kind: &str, app: &str| -> Vec<&Pod> {
            let own = |pod: &&Pod| {
                let labels = pod.metadata.labels.as_ref();
                let named = labels.and_then(|labels| labels.get("app")).is_some_and(|name| name == app);
                named && owner(pod).is_some_and(|(owner, _)| owner == kind)
            };
            state.pods.values().filter(own).collect()
        };
        for (app, kind, replicas) in [
            (WEB, "ReplicaSet", state.deployments.get(WEB).and_then(|web| web.spec.as_ref()?.replicas)),
            (DB, "StatefulSet", state.stateful_sets.get(DB).and_then(|db| db.spec.as_ref()?.replicas)),
            (AGENT, "DaemonSet", i32::try_from(state.nodes.len()).ok()),
        ] {
            let pods = of(kind, app);
            let right = |pod: &&&Pod| is_active(pod) && is_ready(pod) && image(pod) == self.images[app];
            let wanted = usize::try_from(replicas.unwrap_or_default()).unwrap_or_default();
            let (wanted, right) = (wanted, pods.iter().filter(right).count());
            if pods.len() != wanted || right != wanted {
                return Some(format!("{app} has {} pods, {right} as they should be, of {wanted}", pods.len()));
            }
        }
        let web = state.deployments.get(WEB).and_then(|web| web.status.as_ref());
        if web.and_then(|web| web.updated_replicas) != web.and_then(|web| web.available_replicas) {
            return Some(format!("the status of {WEB}: {web:?}"));
        }
        let agent = state.daemon_sets.get(AGENT).and_then(|agent| agent.status.as_ref());
        let counts = |status: &DaemonSetStatus| {
            let numbers = [status.updated_number_scheduled, status.number_available, Some(status.number_ready)];
            numbers.iter().all(|number| *number == Some(status.desired_number_scheduled))
        };
        if !agent.is_some_and(counts) {
            return Some(format!("the status of {AGENT}: {agent:?}"));
        }
        for (name, job) in &state.jobs {
            let (spec, status) = (job.spec.as_ref(), job.status.as_ref());
            if status.and_then(|status| status.succeeded) != spec.and_then(|spec| spec.completions) {
                return Some(format!("{name}: {status:?}"));
            }
        }
        let live = state.pods.values().filter(|pod| is_active(pod)).count();
        let used =
            state.quotas.get(QUOTA).and_then(|quota| quota.status.as_ref()?.used.as_ref()?.get("pods").map(amount));
        if used != Some(live as f64) {
            return Some(format!("the quota counts {used:?} pods of {live}"));
        }
        self.broken_gang()
    }

    /// A gang of which only a part is there, or one that could be and is not.
    fn broken_gang(&self) -> Option<String> {
        let pods = &self.judge.state.pods;
        let used: f64 = pods.values().filter(|pod| is_active(pod) && is_bound(pod)).map(gpus).sum();
        let free = (GPU_NODES * CARDS) as f64 - used;
        for (name, needed) in self.gangs.iter().filter(|(name, _)| !self.maimed.contains(*name)) {
            let members: Vec<&Pod> = pods.values().filter(|pod| gang_of(pod) == Some(name)).collect();
            let bound = members.iter().filter(|pod| is_bound(pod)).count();
            if bound > 0 && bound < *needed {
                return Some(format!("{name} is there in part: {bound} of {needed}"));
            }
            if bound == 0 && members.len() >= *needed && *needed as f64 <= free {
                return Some(format!("{name} of {needed} waits, and {free} cards are free"));
            }
        }
        None
    }
}
