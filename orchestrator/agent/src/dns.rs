//! The files that a pod's resolver reads, as texts: `resolv.conf`, `hosts`, `hostname`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use podium_types::k8s::api::core::v1::{Pod, PodSpec};

/// The kernel's limit of a host name, less the terminating zero.
const HOSTNAME_BYTES_MAX: usize = 63;

/// What a resolver is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: BTreeMap<String, Option<String>>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => resolver.searches = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| resolver.set_option(word)),
                Some(_) | None => {}
            }
        }
        resolver
    }

    fn set_option(&mut self, option: &str) {
        match option.split_once(':') {
            Some((name, value)) => self.options.insert(name.to_owned(), Some(value.to_owned())),
            None => self.options.insert(option.to_owned(), None),
        };
    }

    fn print(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for nameserver in &self.nameservers {
            text.push_str(&format!("nameserver {nameserver}\n"));
        }
        if !self.options.is_empty() {
            let options: Vec<_> = self
                .options
                .iter()
                .map(|(name, value)| {
                    value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}"))
                })
                .collect();
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        text
    }
}

/// A pod's `resolv.conf`, by its DNS policy.
pub(crate) fn resolv_conf(
    pod: &Pod,
    cluster_dns: &[IpAddr],
    cluster_domain: &str,
    node: &str,
) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let cluster = match policy {
        "ClusterFirst" => !host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut resolver = if policy == "None" { Resolver::default() } else { Resolver::parse(node) };
    if cluster {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let searches = [format!("{namespace}.svc."), "svc.".to_owned(), String::new()];
        resolver.nameservers = cluster_dns.iter().map(ToString::to_string).collect();
        resolver.searches.splice(0..0, searches.map(|prefix| format!("{prefix}{cluster_domain}")));
        resolver.set_option("ndots:5");
    }
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        resolver.nameservers.extend(config.nameservers.iter().flatten().cloned());
        resolver.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            resolver.options.insert(option.name.clone().unwrap_or_default(), option.value.clone());
        }
    }
    let mut seen = Vec::new();
    resolver.searches.retain(|search| {
        let new = !seen.contains(search);
        seen.push(search.clone());
        new
    });
    resolver.print()
}

/// The name that a pod has for itself, and the domain if it is part of a headless Service's names.
pub(crate) fn names(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.spec.as_ref();
    let given = |value: Option<&String>| value.filter(|value| !value.is_empty()).cloned();
    if let Some(name) = given(spec.and_then(|spec| spec.hostname_override.as_ref())) {
        return (name, None);
    }
    let name = given(spec.and_then(|spec| spec.hostname.as_ref()))
        .unwrap_or_else(|| shortened(pod.metadata.name.as_deref().unwrap_or_default()));
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = given(spec.and_then(|spec| spec.subdomain.as_ref()))
        .map(|subdomain| format!("{subdomain}.{namespace}.svc.{cluster_domain}"));
    (name, domain)
}

/// The host name as the kernel is told.
pub(crate) fn hostname(pod: &Pod, cluster_domain: &str) -> String {
    let (name, domain) = names(pod, cluster_domain);
    let full = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    match domain {
        Some(domain) if full => format!("{name}.{domain}"),
        Some(_) | None => name,
    }
}

/// A pod's `/etc/hosts`.
pub(crate) fn hosts(pod: &Pod, addresses: &[IpAddr], cluster_domain: &str) -> String {
    let mut text = String::from(
        "# Podium-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let (name, domain) = names(pod, cluster_domain);
    for address in addresses {
        match &domain {
            Some(domain) => text.push_str(&format!("{address}\t{name}.{domain}\t{name}\n")),
            None => text.push_str(&format!("{address}\t{name}\n")),
        }
    }
    text.push_str(&aliases(pod.spec.as_ref()));
    text
}

fn aliases(spec: Option<&PodSpec>) -> String {
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// A pod's name cut to what a host name may be.
fn shortened(name: &str) -> String {
    let head: String = name.chars().take(HOSTNAME_BYTES_MAX).collect();
    head.trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{hostname, hosts, resolv_conf};
    use podium_types::k8s::api::core::v1::Pod;
    use serde_json::{Value, json};
    use std::net::IpAddr;

    const NODE: &str = "# by init\nnameserver 10.0.2.3\nsearch lan.example\noptions edns0\n";

    fn pod(spec: &Value) -> Pod {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        serde_json::from_value(
            json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}),
        )
        .expect("a pod")
    }

    fn resolver(spec: &Value) -> String {
        let dns: Vec<IpAddr> = vec!["10.96.0.10".parse().expect("an address")];
        resolv_conf(&pod(spec), &dns, "cluster.local", NODE)
    }

    #[test]
    fn cluster_first_asks_the_cluster_and_searches_the_namespace() {
        assert_eq!(
            resolver(&json!({})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local lan.example\nnameserver 10.96.0.10\n\
             options edns0 ndots:5\n"
        );
    }

    #[test]
    fn default_policy_and_host_network_use_the_nodes_resolver() {
        let node = "search lan.example\nnameserver 10.0.2.3\noptions edns0\n";
        assert_eq!(resolver(&json!({"dnsPolicy": "Default"})), node);
        assert_eq!(resolver(&json!({"hostNetwork": true})), node);
        assert!(
            resolver(&json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}))
                .contains("10.96.0.10")
        );
    }

    #[test]
    fn policy_none_has_only_what_the_pod_gives() {
        let spec = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}});
        assert_eq!(resolver(&spec), "search a.b\nnameserver 1.1.1.1\noptions ndots:2 rotate\n");
    }

    #[test]
    fn hosts_name_the_pod_with_its_subdomain_and_the_aliases() {
        let spec = json!({"hostname": "web", "subdomain": "front",
            "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["db", "db.lan"]}]});
        let addresses: Vec<IpAddr> = vec!["10.244.0.9".parse().expect("an address")];
        let text = hosts(&pod(&spec), &addresses, "cluster.local");
        assert!(text.contains("10.244.0.9\tweb.front.shop.svc.cluster.local\tweb\n"), "{text}");
        assert!(
            text.ends_with("# Entries added by HostAliases.\n10.1.2.3\tdb\tdb.lan\n"),
            "{text}"
        );
    }

    #[test]
    fn hostname_is_the_pods_name_cut_to_what_the_kernel_takes() {
        let mut long = pod(&json!({}));
        long.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(20)));
        assert_eq!(hostname(&long, "cluster.local"), "a".repeat(62));
        let spec = json!({"hostname": "web", "subdomain": "front", "setHostnameAsFQDN": true});
        assert_eq!(hostname(&pod(&spec), "cluster.local"), "web.front.shop.svc.cluster.local");
    }
}
