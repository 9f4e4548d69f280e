//! core/v1 PodTemplate.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodTemplate as Object, PodTemplateSpec};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, cell_name, generation_of};
use serde_json::Value;

use super::common::{container_cells, format_labels, template_containers};
use super::pod::{default_template, template_warnings, validate_template};

/// PodTemplates.
pub(crate) struct PodTemplate;

impl Kind for PodTemplate {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor::namespaced("", "v1", "PodTemplate", "podtemplates");

    fn default(object: &mut Object) {
        default_template(object.template.get_or_insert_default());
    }

    generation_of!(template);

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = PodTemplateSpec::default();
        validate_template(&mut errors, &Path::new("template"), object.template.as_ref().unwrap_or(&empty));
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(new, old, false, &["template"], new.template.as_ref())
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Containers", "Names of the containers in the template."),
            Column::string("Images", "Images of the containers in the template."),
            Column::string("Pod Labels", "Labels of the pods."),
        ]
    }

    fn row(object: &Object, _now: Timestamp) -> Vec<Value> {
        let empty = PodTemplateSpec::default();
        let template = object.template.as_ref().unwrap_or(&empty);
        let [names, images] = container_cells(template_containers(template));
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        vec![cell_name(&object.metadata), names, images, format_labels(&labels).into()]
    }
}
