//! What the operator's flags decide for every deployment; `llmd diff` reads the same from the running operator.

use llmd_render::{CaBundle, Egress, RenderOptions};

/// Key of a ConfigMap with certificate authorities, as `OpenShift` and trust-manager's examples fill it.
const BUNDLE_KEY: &str = "ca-bundle.crt";

/// Settings of the renderer. `flag` gives a flag's value, `None` where it was not given; values that mean nothing
/// are taken as not given (the operator itself refuses them).
pub fn render_options(flag: impl Fn(&str) -> Option<String>) -> RenderOptions {
    let given = |name| flag(name).filter(|value| !value.is_empty());
    let defaults = RenderOptions::default();
    RenderOptions {
        image_repository: given("image-registry").unwrap_or_else(|| defaults.image_repository.clone()),
        image_tag: given("image-tag").unwrap_or_else(|| defaults.image_tag.clone()),
        run_as_user: match flag("run-as-user") {
            Some(user) => user.parse().ok(),
            None => defaults.run_as_user,
        },
        mirror: given("image-mirror"),
        egress: Egress {
            http_proxy: given("engine-http-proxy"),
            https_proxy: given("engine-https-proxy"),
            no_proxy: given("engine-no-proxy"),
            ca_bundle: given("engine-ca-bundle").map(|bundle| ca_bundle(&bundle)),
        },
        ..defaults
    }
}

/// `NAME` or `NAME/KEY`.
fn ca_bundle(text: &str) -> CaBundle {
    let (config_map, key) = text.split_once('/').unwrap_or((text, BUNDLE_KEY));
    CaBundle {
        config_map: config_map.to_owned(),
        key: key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, &str)]) -> RenderOptions {
        render_options(|name| {
            let found = given.iter().find(|(flag, _)| *flag == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(options(&[]), RenderOptions::default());
        assert_eq!(
            options(&[("image-mirror", ""), ("image-tag", "")]),
            RenderOptions::default()
        );
    }

    #[test]
    fn each_flag_has_its_place() {
        let options = options(&[
            ("image-registry", "r.example/llmd"),
            ("image-tag", "v9"),
            ("run-as-user", ""),
            ("image-mirror", "m.example"),
            ("engine-https-proxy", "http://proxy:3128"),
            ("engine-no-proxy", "10.0.0.0/8"),
            ("engine-ca-bundle", "trust/root.pem"),
        ]);
        assert_eq!(
            (options.image_repository.as_str(), options.image_tag.as_str()),
            ("r.example/llmd", "v9")
        );
        assert_eq!(
            (options.run_as_user, options.mirror.as_deref()),
            (None, Some("m.example"))
        );
        assert_eq!(options.egress.https_proxy.as_deref(), Some("http://proxy:3128"));
        let bundle = options.egress.ca_bundle.unwrap();
        assert_eq!(
            (bundle.config_map.as_str(), bundle.key.as_str()),
            ("trust", "root.pem")
        );
        assert_eq!(ca_bundle("trust").key, BUNDLE_KEY);
    }
}
