//! The environment and the command line of a container.
//!
//! Later entries win: the image's, then the Services' of the namespace, then `envFrom`, then `env`. `$(NAME)` in values
//! of `env`, in the command and in the arguments is replaced by what is known at that point; an unknown name stays as
//! it is, and `$$` is a plain dollar sign.

use podium_types::k8s::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource, Pod};

use crate::fields::{self, FieldFacts};
use crate::seams::{References, ServiceAddress};

/// Environment in order, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment(Vec<(String, String)>);

impl Environment {
    /// Sets a variable; the first place of a name is kept.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All variables in order.
    pub(crate) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// Replaces `$(NAME)`.
    pub(crate) fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, tail) = rest.split_at(at);
            out.push_str(before);
            let tail = tail.get(1..).unwrap_or_default();
            if let Some(after) = tail.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) =
                tail.strip_prefix('(').and_then(|tail| tail.split_once(')'))
            {
                match self.get(name) {
                    Some(value) => out.push_str(value),
                    None => out.push_str(&format!("$({name})")),
                }
                rest = after;
            } else {
                out.push('$');
                rest = tail;
            }
        }
        out.push_str(rest);
        out
    }
}

/// Makes a container's environment.
///
/// # Errors
/// The text for the status when something that is not optional is missing.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    image: &[String],
    references: &dyn References,
    facts: &FieldFacts,
) -> Result<Environment, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut environment = Environment::default();
    for entry in image {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        environment.set(name, value.to_owned());
    }
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    for service in references.services(namespace) {
        if links || service.name == "kubernetes" {
            set_service(&mut environment, &service);
        }
    }
    for source in container.env_from.iter().flatten() {
        set_from(&mut environment, namespace, source, references)?;
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => value_from(pod, container, variable, source, references, facts)?,
            (Some(value), None) => Some(environment.expand(value)),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            environment.set(&variable.name, value);
        }
    }
    Ok(environment)
}

/// The command line of a container: the spec's command and arguments over the image's.
pub(crate) fn command_line(
    container: &Container,
    entrypoint: &[String],
    cmd: &[String],
    environment: &Environment,
) -> Vec<String> {
    let expand =
        |list: &[String]| list.iter().map(|text| environment.expand(text)).collect::<Vec<_>>();
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    match (command.is_empty(), args.is_empty()) {
        (true, true) => [entrypoint, cmd].concat(),
        (true, false) => [entrypoint.to_vec(), expand(args)].concat(),
        (false, _) => [expand(command), expand(args)].concat(),
    }
}

fn set_from(
    environment: &mut Environment,
    namespace: &str,
    source: &EnvFromSource,
    references: &dyn References,
) -> Result<(), String> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    if let Some(wanted) = &source.config_map_ref {
        match references.config_map(namespace, &wanted.name) {
            Some(found) => {
                for (key, value) in found.data.iter().flatten() {
                    environment.set(&format!("{prefix}{key}"), value.clone());
                }
            }
            None if wanted.optional == Some(true) => {}
            None => return Err(format!("configmap \"{}\" not found", wanted.name)),
        }
    }
    if let Some(wanted) = &source.secret_ref {
        match references.secret(namespace, &wanted.name) {
            Some(found) => {
                for (key, value) in found.data.iter().flatten() {
                    environment.set(
                        &format!("{prefix}{key}"),
                        String::from_utf8_lossy(&value.0).into_owned(),
                    );
                }
            }
            None if wanted.optional == Some(true) => {}
            None => return Err(format!("secret \"{}\" not found", wanted.name)),
        }
    }
    Ok(())
}

/// The value of a variable that stands elsewhere; `None` if it is optional and not there.
fn value_from(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    source: &EnvVarSource,
    references: &dyn References,
    facts: &FieldFacts,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(selector) = &source.field_ref {
        return fields::field(pod, selector, facts).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
        let of = match named {
            Some(name) => find(pod, name).ok_or_else(|| format!("container {name} not found"))?,
            None => container,
        };
        return fields::resource(of, selector, facts).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        return match references.config_map(namespace, &selector.name) {
            None if optional => Ok(None),
            None => Err(format!("configmap \"{}\" not found", selector.name)),
            Some(found) => match found.data.as_ref().and_then(|data| data.get(&selector.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    selector.key, selector.name
                )),
            },
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        return match references.secret(namespace, &selector.name) {
            None if optional => Ok(None),
            None => Err(format!("secret \"{}\" not found", selector.name)),
            Some(found) => match found.data.as_ref().and_then(|data| data.get(&selector.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    selector.key, selector.name
                )),
            },
        };
    }
    Err(format!("env {}: this source of a value is not supported", variable.name))
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|container| container.name == name)
}

/// The variables by which containers found Services before there was DNS.
fn set_service(environment: &mut Environment, service: &ServiceAddress) {
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let (name, host) = (upper(&service.name), &service.cluster_ip);
    let Some((_, first_protocol, first_port)) = service.ports.first() else { return };
    environment.set(&format!("{name}_SERVICE_HOST"), host.clone());
    environment.set(&format!("{name}_SERVICE_PORT"), first_port.to_string());
    for (port_name, _, port) in service.ports.iter().filter(|(port_name, ..)| !port_name.is_empty())
    {
        environment.set(&format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.to_string());
    }
    let url = |protocol: &str, port: u16| format!("{}://{host}:{port}", protocol.to_lowercase());
    environment.set(&format!("{name}_PORT"), url(first_protocol, *first_port));
    for (_, protocol, port) in &service.ports {
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_uppercase());
        environment.set(&prefix, url(protocol, *port));
        environment.set(&format!("{prefix}_PROTO"), protocol.to_lowercase());
        environment.set(&format!("{prefix}_PORT"), port.to_string());
        environment.set(&format!("{prefix}_ADDR"), host.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::{Environment, command_line, environment};
    use crate::fields::FieldFacts;
    use crate::seams::{References, ServiceAddress};
    use podium_types::k8s::api::core::v1::{ConfigMap, Pod, Secret};
    use serde_json::{Value, json};
    use std::sync::Arc;

    struct Fixed;

    impl References for Fixed {
        fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
            let map = json!({"metadata": {"name": "conf"}, "data": {"mode": "fast", "level": "3"}});
            (namespace == "ns" && name == "conf")
                .then(|| Arc::new(serde_json::from_value(map).expect("a ConfigMap")))
        }

        fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
            let secret = json!({"metadata": {"name": "key"}, "data": {"password": "aHVudGVyMg=="}});
            (namespace == "ns" && name == "key")
                .then(|| Arc::new(serde_json::from_value(secret).expect("a Secret")))
        }

        fn services(&self, _namespace: &str) -> Vec<ServiceAddress> {
            vec![ServiceAddress {
                name: "redis-master".to_owned(),
                cluster_ip: "10.96.0.7".to_owned(),
                ports: vec![("db".to_owned(), "TCP".to_owned(), 6379)],
            }]
        }
    }

    fn resolve(container: Value, image: &[&str]) -> Result<Environment, String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [container]}}),
        )
        .expect("a pod");
        let image: Vec<_> = image.iter().map(|&text| text.to_owned()).collect();
        let container = pod.spec.as_ref().expect("a spec").containers.first().expect("a container");
        environment(&pod, container, &image, &Fixed, &FieldFacts::default())
    }

    #[test]
    fn later_sources_win_and_references_resolve_in_order() {
        let container = json!({
            "name": "c",
            "envFrom": [{"configMapRef": {"name": "conf"}, "prefix": "C_"}, {"secretRef": {"name": "key"}}],
            "env": [
                {"name": "PATH", "value": "/app:$(PATH)"},
                {"name": "C_level", "value": "9"},
                {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "mode"}}},
                {"name": "URL", "value": "redis://$(REDIS_MASTER_SERVICE_HOST)/$(MODE)?p=$(password)&x=$(NONE)&y=$$(MODE)"},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            ]
        });
        let resolved = resolve(container, &["PATH=/bin", "A=b=c"]).expect("an environment");
        for (name, expected) in [
            ("PATH", "/app:/bin"),
            ("A", "b=c"),
            ("C_mode", "fast"),
            ("C_level", "9"),
            ("password", "hunter2"),
            ("URL", "redis://10.96.0.7/fast?p=hunter2&x=$(NONE)&y=$(MODE)"),
            ("NAME", "p"),
            ("REDIS_MASTER_PORT_6379_TCP", "tcp://10.96.0.7:6379"),
            ("REDIS_MASTER_SERVICE_PORT_DB", "6379"),
        ] {
            assert_eq!(resolved.get(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn missing_references_are_named_unless_optional() {
        let with = |env: Value| resolve(json!({"name": "c", "env": [env]}), &[]);
        let from = |source: Value| with(json!({"name": "X", "valueFrom": source}));
        assert_eq!(
            from(json!({"configMapKeyRef": {"name": "none", "key": "k"}})),
            Err("configmap \"none\" not found".to_owned())
        );
        assert_eq!(
            from(json!({"configMapKeyRef": {"name": "conf", "key": "k"}})),
            Err("couldn't find key k in ConfigMap ns/conf".to_owned())
        );
        assert_eq!(
            from(json!({"secretKeyRef": {"name": "none", "key": "k"}})),
            Err("secret \"none\" not found".to_owned())
        );
        let absent = from(json!({"secretKeyRef": {"name": "none", "key": "k", "optional": true}}))
            .expect("optional");
        assert_eq!(absent.get("X"), None);
    }

    #[test]
    fn command_replaces_the_entrypoint_and_arguments_replace_the_default_command() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let line = |container: Value| {
            let container = serde_json::from_value(container).expect("a container");
            let mut environment = Environment::default();
            environment.set("V", "v".to_owned());
            command_line(&container, &words("entry -e"), &words("cmd $(V)"), &environment).join(" ")
        };
        assert_eq!(line(json!({"name": "c"})), "entry -e cmd $(V)");
        assert_eq!(line(json!({"name": "c", "args": ["$(V)", "$$(V)"]})), "entry -e v $(V)");
        assert_eq!(line(json!({"name": "c", "command": ["run"]})), "run");
        assert_eq!(line(json!({"name": "c", "command": ["run"], "args": ["x"]})), "run x");
    }
}
