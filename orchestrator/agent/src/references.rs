//! What a pod's spec refers to, and what it says of its containers.

use podium_types::k8s::api::core::v1::{Container, Pod, Volume};

/// Whether the pod takes anything from this ConfigMap.
pub(crate) fn uses_config_map(pod: &Pod, namespace: &str, name: &str) -> bool {
    pod.metadata.namespace.as_deref() == Some(namespace)
        && (volumes(pod).any(|volume| volume_has_config_map(volume, name))
            || containers(pod).any(|container| env_has_config_map(container, name)))
}

/// Whether the pod takes anything from this Secret.
pub(crate) fn uses_secret(pod: &Pod, namespace: &str, name: &str) -> bool {
    pod.metadata.namespace.as_deref() == Some(namespace)
        && (volumes(pod).any(|volume| volume_has_secret(volume, name))
            || containers(pod).any(|container| env_has_secret(container, name)))
}

/// Whether the pod has a container of this name, of either kind.
pub(crate) fn has_container(pod: &Pod, name: &str) -> bool {
    containers(pod).any(|container| container.name == name)
}

/// Why a container waits, as the pod's status says.
pub(crate) fn waiting_reason(pod: &Pod, name: &str) -> String {
    let status = pod.status.as_ref();
    let main = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let init =
        status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    main.chain(init)
        .find(|known| known.name == name)
        .and_then(|known| known.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_else(|| "ContainerCreating".to_owned())
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn volume_has_config_map(volume: &Volume, name: &str) -> bool {
    let own = volume.config_map.as_ref().is_some_and(|source| source.name == name);
    let parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    own || parts.filter_map(|part| part.config_map.as_ref()).any(|part| part.name == name)
}

fn volume_has_secret(volume: &Volume, name: &str) -> bool {
    let own =
        volume.secret.as_ref().is_some_and(|source| source.secret_name.as_deref() == Some(name));
    let parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    own || parts.filter_map(|part| part.secret.as_ref()).any(|part| part.name == name)
}

fn env_has_config_map(container: &Container, name: &str) -> bool {
    let whole = container.env_from.iter().flatten().filter_map(|from| from.config_map_ref.as_ref());
    let single = container
        .env
        .iter()
        .flatten()
        .filter_map(|env| env.value_from.as_ref()?.config_map_key_ref.as_ref());
    whole.map(|from| &from.name).chain(single.map(|from| &from.name)).any(|known| known == name)
}

fn env_has_secret(container: &Container, name: &str) -> bool {
    let whole = container.env_from.iter().flatten().filter_map(|from| from.secret_ref.as_ref());
    let single = container
        .env
        .iter()
        .flatten()
        .filter_map(|env| env.value_from.as_ref()?.secret_key_ref.as_ref());
    whole.map(|from| &from.name).chain(single.map(|from| &from.name)).any(|known| known == name)
}
