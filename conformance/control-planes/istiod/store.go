package main

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/testing"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
	"istio.io/istio/pkg/kube"
)

// store is the cluster istiod sees. Its ambient index and its Gateway API controller read the
// Kubernetes API, its translation reads the configuration store: Istio's configuration goes to both.
type store struct{ server *xds.FakeDiscoveryServer }

// tracker is what every fake client of Kubernetes has.
type tracker interface{ Tracker() testing.ObjectTracker }

func (s *store) apply(text string) error {
	return documents(text, func(document string, object runtime.Object) error {
		if err := s.applyObject(object); err != nil {
			return err
		}
		configs, _, err := crd.ParseInputs(document)
		if err != nil {
			return err
		}
		for _, c := range configs {
			if !isIstio(c.GroupVersionKind.Group) {
				continue
			}
			if s.server.Store().Get(c.GroupVersionKind, c.Name, c.Namespace) == nil {
				_, err = s.server.Store().Create(c)
			} else {
				_, err = s.server.Store().Update(c)
			}
			if err != nil {
				return fmt.Errorf("%s %s/%s: %w", c.GroupVersionKind.Kind, c.Namespace, c.Name, err)
			}
		}
		return nil
	})
}

func (s *store) applyObject(object runtime.Object) error {
	meta, resource, client := s.locate(object)
	objects := client.Tracker()
	err := objects.Create(resource, object, meta.GetNamespace())
	if apierrors.IsAlreadyExists(err) {
		err = objects.Update(resource, object, meta.GetNamespace())
	}
	return err
}

func (s *store) remove(text string) error {
	return documents(text, func(_ string, object runtime.Object) error {
		meta, resource, client := s.locate(object)
		if err := client.Tracker().Delete(resource, meta.GetNamespace(), meta.GetName()); err != nil {
			return err
		}
		kind := kindOf(object)
		if !isIstio(kind.Group) {
			return nil
		}
		return s.server.Store().Delete(kind, meta.GetName(), meta.GetNamespace(), nil)
	})
}

// locate says where an object is kept.
func (s *store) locate(object runtime.Object) (metav1.Object, schema.GroupVersionResource, tracker) {
	meta := object.(metav1.ObjectMetaAccessor).GetObjectMeta()
	kind := kindOf(object)
	resource, _ := gvk.ToGVR(kind)
	if resource.Group == "core" {
		resource.Group = ""
	}
	var client any
	switch {
	case isIstio(kind.Group):
		client = s.server.KubeClient().Istio()
	case strings.HasPrefix(kind.Group, "gateway.networking."):
		client = s.server.KubeClient().GatewayAPI()
	default:
		client = s.server.KubeClient().Kube()
	}
	return meta, resource, client.(tracker)
}

func kindOf(object runtime.Object) config.GroupVersionKind {
	return config.FromKubernetesGVK(object.GetObjectKind().GroupVersionKind())
}

func isIstio(group string) bool { return strings.HasSuffix(group, "istio.io") }

// documents decodes each YAML document.
func documents(text string, f func(string, runtime.Object) error) error {
	decode := kube.IstioCodec.UniversalDeserializer().Decode
	for _, document := range strings.Split("\n"+text, "\n---") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		object, kind, err := decode([]byte(document), nil, nil)
		if err != nil {
			return fmt.Errorf("%w in\n%s", err, document)
		}
		object.GetObjectKind().SetGroupVersionKind(*kind)
		if err := f(document, object); err != nil {
			return fmt.Errorf("%w in\n%s", err, document)
		}
	}
	return nil
}
