// Package plane holds two control planes. Snapshots is go-control-plane's server; Script answers
// exactly what a scenario tells it to, which a well-behaved server would never do.
package plane

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	// Extensions that stand in an Any of a scenario's YAML.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
)

// Type URLs of the resources, by their short names.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// Resource is one named resource in the form it is sent.
type Resource struct {
	Name    string
	Type    string
	Message types.Resource
	Any     *anypb.Any
}

// parse reads YAML as protobuf JSON. Scenarios are constants, so that an error is ours: it panics.
func parse(text string, m proto.Message) {
	json, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = protojson.Unmarshal(json, m)
	}
	if err != nil {
		panic(fmt.Sprintf("%v in\n%s", err, text))
	}
}

func resource(name, typeURL string, m types.Resource) Resource {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return Resource{Name: name, Type: typeURL, Message: m, Any: &anypb.Any{TypeUrl: typeURL, Value: body}}
}

// Of is a message as a resource, for those that are made by the thousand.
func Of(name, typeURL string, m types.Resource) Resource { return resource(name, typeURL, m) }

// Cluster reads a cluster from YAML, and so do its siblings with their types.
func Cluster(text string) Resource {
	m := &cluster.Cluster{}
	parse(text, m)
	return resource(m.Name, ClusterType, m)
}

func Endpoints(text string) Resource {
	m := &endpoint.ClusterLoadAssignment{}
	parse(text, m)
	return resource(m.ClusterName, EndpointType, m)
}

func Listener(text string) Resource {
	m := &listener.Listener{}
	parse(text, m)
	return resource(m.Name, ListenerType, m)
}

func Route(text string) Resource {
	m := &route.RouteConfiguration{}
	parse(text, m)
	return resource(m.Name, RouteType, m)
}

func Secret(text string) Resource {
	m := &tls.Secret{}
	parse(text, m)
	return resource(m.Name, SecretType, m)
}
