{{- define "rescheduler.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The name of all objects. It has no release name: a cluster has one installation. */}}
{{- define "rescheduler.fullname" -}}
{{ .Values.fullnameOverride | default (include "rescheduler.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "rescheduler.selector" -}}
app.kubernetes.io/name: {{ include "rescheduler.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rescheduler.labels" -}}
{{ include "rescheduler.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rescheduler.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "rescheduler.fullname" .) }}
{{- end }}

{{- define "rescheduler.cleanupServiceAccount" -}}
{{ include "rescheduler.fullname" . }}-cleanup
{{- end }}

{{- /* The identities of the operator: its ServiceAccount, and that of the hook before an uninstall. */}}
{{- define "rescheduler.identities" -}}
["system:serviceaccount:{{ .Release.Namespace }}:{{ include "rescheduler.serviceAccount" . }}", "system:serviceaccount:{{ .Release.Namespace }}:{{ include "rescheduler.cleanupServiceAccount" . }}"]
{{- end }}

{{- /* Both identities as subjects of a binding. */}}
{{- define "rescheduler.subjects" -}}
- {kind: ServiceAccount, name: {{ include "rescheduler.serviceAccount" . }}, namespace: {{ .Release.Namespace }}}
- {kind: ServiceAccount, name: {{ include "rescheduler.cleanupServiceAccount" . }}, namespace: {{ .Release.Namespace }}}
{{- end }}

{{- define "rescheduler.image" -}}
{{- $image := .Values.image }}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "rescheduler.imagePullSecrets" -}}
{{- with concat .Values.imagePullSecrets ((.Values.global).imagePullSecrets | default list) }}
imagePullSecrets:
{{- range . }}
- name: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The fields of a pod that the operator, the cleanup and the test share. */}}
{{- define "rescheduler.podSpec" -}}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
priorityClassName: {{ .Values.priorityClassName | quote }}
{{- with .Values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "rescheduler.imagePullSecrets" . }}
{{- . }}
{{- end }}
{{- if .Values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- if not (kindIs "invalid" .Values.hostUsers) }}
hostUsers: {{ .Values.hostUsers }}
{{- end }}
{{- with .Values.dnsPolicy | default (.Values.hostNetwork | ternary "ClusterFirstWithHostNet" "") }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
- name: tmp
  emptyDir: {sizeLimit: 16Mi}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The fields of a container that they share. */}}
{{- define "rescheduler.container" -}}
image: {{ include "rescheduler.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- with .Values.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* `true` if the admission policies of pools are installed. */}}
{{- define "rescheduler.poolPolicies" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" }}
{{- if or (eq .Values.pools.policies "always") (and (eq .Values.pools.policies "auto") $served) }}true{{ end }}
{{- end }}

{{- /* `true` if an optional kind is installed. Call it with: enabled (auto, true or false), kind (group/version/kind), root. */}}
{{- define "rescheduler.enabled" -}}
{{- if eq (toString .enabled) "auto" }}
{{- if .root.Capabilities.APIVersions.Has .kind }}true{{ end }}
{{- else if .enabled }}true{{ end }}
{{- end }}

{{- /* Namespaces that are never in a pool. */}}
{{- define "rescheduler.neverMapped" -}}
{{ list "kube-system" .Release.Namespace | uniq | toJson }}
{{- end }}

{{- /* Namespaces whose pods may tolerate every taint. */}}
{{- define "rescheduler.mayTolerate" -}}
{{ concat (list "kube-system" .Release.Namespace) .Values.pools.exemptNamespaces | uniq | toJson }}
{{- end }}

{{- /*
Match conditions for all pods but DaemonSet pods and mirror pods. Anybody can write an ownerReference to a DaemonSet. It
counts only if the user may update the status of DaemonSets in the whole cluster, as their controller may. A mirror pod
needs no such check: a kubelet starts only the mirror pods that it created.
*/}}
{{- define "rescheduler.podConditions" -}}
- name: not-of-a-daemonset
  expression: >-
    !object.metadata.?ownerReferences.orValue([]).exists(o, o.kind == "DaemonSet" && o.?controller.orValue(false) &&
    authorizer.group(o.apiVersion.contains("/") ? o.apiVersion.split("/")[0] : "").resource("daemonsets").subresource("status").check("update").allowed())
- name: not-a-mirror-pod
  expression: >-
    !("kubernetes.io/config.mirror" in object.metadata.?annotations.orValue({}))
{{- end }}

{{- /* The pool of the pod's namespace; empty if the namespace is in no pool. */}}
{{- define "rescheduler.poolVariable" -}}
- name: pool
  expression: >-
    namespaceObject.metadata.?labels[?"rescheduler.dev/pool"].orValue("")
{{- end }}

{{- define "rescheduler.notCritical" -}}
- name: not-critical
  expression: >-
    !(object.spec.?priorityClassName.orValue("") in ["system-node-critical", "system-cluster-critical"])
{{- end }}
