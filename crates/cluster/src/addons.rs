//! The addons of this build: the one place that names them. A further one is a crate below `addons/` and a line in each list
//! here that it has something for.

use ::addons::Addon;
use apiserver::User;
use controllers::AddonControllers;
use controllers::controller::Row;
use kube::Client;
use registry::admission::AdmissionPlugin;

/// All addons, in the order of their names.
pub static ADDONS: [&Addon; 4] = [&addon_gang::ADDON, &addon_gateway_api::ADDON, &addon_lws::ADDON, &addon_rbg::ADDON];

/// The controllers, with the service account in `kube-system` as which those of an addon act: `bound to` in its policy.
static CONTROLLERS: [(&str, &[Row]); 2] =
    [("leaderworkerset-controller", addon_lws::CONTROLLERS), ("rolebasedgroup-controller", addon_rbg::CONTROLLERS)];

/// The admission plugins, in the order in which they are asked.
pub static ADMISSION: [&dyn AdmissionPlugin; 1] = [addon_lws::ADMISSION];

/// The roles that addons need.
#[must_use]
pub fn policies() -> Vec<&'static str> {
    ADDONS.iter().map(|addon| addon.policy).collect()
}

/// The controllers, each with a client of its addon's own identity.
pub fn controllers(client: impl Fn(User) -> Client) -> Vec<AddonControllers> {
    let controllers = CONTROLLERS.iter().map(|(account, rows)| AddonControllers {
        rows,
        client: client(User::service_account("kube-system", account)),
    });
    controllers.collect()
}

/// The addon of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Addon> {
    ADDONS.into_iter().find(|addon| addon.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_has_a_role() {
        for (account, rows) in CONTROLLERS {
            let bound = format!("bound to ServiceAccount kube-system/{account}\n");
            assert!(policies().iter().any(|policy| policy.contains(&bound)), "{account}");
            assert!(!rows.is_empty());
        }
        let names = ADDONS.map(|addon| addon.name);
        assert!(names.is_sorted(), "{names:?}");
        assert!(find("lws").is_some() && find("nothing").is_none());
    }
}
