package scenarios

import (
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// hostile: a broken or malicious server can make the proxy refuse, never stop or stumble.
func hostile() []Scenario {
	var out []Scenario
	out = append(out, both("hostile/garbage-in-any", garbage)...)
	out = append(out, both("hostile/resource-of-another-type", anotherType)...)
	out = append(out, both("hostile/duplicate-names", duplicates)...)
	out = append(out, both("hostile/unknown-response-type", unknownResponseType)...)
	out = append(out, both("hostile/deep-nesting", deepNesting)...)
	out = append(out, both("hostile/stale-and-unasked", unasked)...)
	return out
}

// survives runs an attack under load: every response is refused, traffic goes on, and good
// configuration is accepted afterwards.
func survives(s *site, attack func(*plane.Script, *kit.Proxy)) {
	two := s.Upstream("two", nil)
	xds, proxy := s.scripted()
	load := s.Load(loadOf(s))
	waitFor(s, load, "one", 20)
	attack(xds, proxy)
	waitFor(s, load, "one", 20)
	xds.Accepted(s.T, xds.Set(plane.EndpointType, "after", endpoints("back", two.Port)), "good endpoints after the attack")
	waitFor(s, load, "two", 20)
	load.StopClean(s.T)
	proxy.Stop()
}

// The types a proxy subscribes to here, each with the name of a resource it has: delta proxies do not
// look at what they did not ask for.
var everyType = map[string]string{
	plane.ClusterType: "back", plane.EndpointType: "back", plane.ListenerType: "front", plane.RouteType: "routes",
}

func garbage(s *site) {
	survives(s, func(xds *plane.Script, _ *kit.Proxy) {
		bodies := [][]byte{
			{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, // a tag past 64 bits
			{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f},                               // a name of four gigabytes
			{0x0a, 0x02, 0xc3, 0x28},                                           // a name that is not UTF-8
			[]byte("not a protobuf message at all"),
		}
		for typeURL, name := range everyType {
			for _, body := range bodies {
				nonce := xds.Push(typeURL, typeURL, "evil", plane.Raw(name, "evil", typeURL, body))
				xds.Refused(s.T, nonce, "garbage as "+typeURL)
			}
		}
	})
}

func anotherType(s *site) {
	survives(s, func(xds *plane.Script, _ *kit.Proxy) {
		for typeURL, name := range everyType {
			nonce := xds.Push(typeURL, typeURL, "evil", plane.Raw(name, "evil", "type.googleapis.com/no.such.Message", []byte{0x0a, 0x01, 'x'}))
			xds.Refused(s.T, nonce, "an unknown message as "+typeURL)
		}
		cluster := edsCluster("evil").Wire("evil")
		nonce := xds.Push(plane.ListenerType, plane.ListenerType, "evil", cluster)
		xds.Refused(s.T, nonce, "a cluster as a listener")
	})
}

func duplicates(s *site) {
	survives(s, func(xds *plane.Script, _ *kit.Proxy) {
		twin := func(r plane.Resource) []*discovery.Resource {
			return []*discovery.Resource{r.Wire("evil"), r.Wire("evil")}
		}
		nonce := xds.Push(plane.ClusterType, plane.ClusterType, "evil", twin(edsCluster("back"))...)
		xds.Refused(s.T, nonce, "two clusters of one name")
		nonce = xds.Push(plane.ListenerType, plane.ListenerType, "evil", twin(listener("front", s.port, rds("routes")))...)
		xds.Refused(s.T, nonce, "two listeners of one name")
	})
}

// unknownResponseType: a response of a type nobody asked for is dropped; the stream may be kept or
// closed, but configuration must flow again.
func unknownResponseType(s *site) {
	survives(s, func(xds *plane.Script, proxy *kit.Proxy) {
		xds.Push(plane.ClusterType, "type.googleapis.com/no.such.Message", "evil", plane.Raw("evil", "evil", "type.googleapis.com/no.such.Message", nil))
		xds.Push(plane.ClusterType, "", "evil")
		s.Expect(proxy.Running(), "the proxy is gone")
	})
}

// deepNesting: messages nested deeper than a parser's stack may be.
func deepNesting(s *site) {
	survives(s, func(xds *plane.Script, _ *kit.Proxy) {
		nonce := xds.Push(plane.ClusterType, plane.ClusterType, "evil", plane.Raw("evil", "evil", plane.ClusterType, nestedCluster(10_000)))
		xds.Refused(s.T, nonce, "a cluster nested 10,000 deep")
	})
}

// nestedCluster is a cluster whose metadata is a struct in a list in a struct ... n times.
func nestedCluster(n int) []byte {
	value := []byte{0x10, 0x00} // google.protobuf.Value{null}
	wrap := func(tag byte, body []byte) []byte {
		out := append([]byte{tag}, varint(len(body))...)
		return append(out, body...)
	}
	for range n {
		value = wrap(0x32, wrap(0x0a, value)) // Value{list_value: ListValue{values: [value]}}
	}
	field := append(wrap(0x0a, []byte("k")), wrap(0x12, value)...)     // Struct.fields entry
	structure := wrap(0x0a, field)                                     // Struct
	entry := append(wrap(0x0a, []byte("m")), wrap(0x12, structure)...) // filter_metadata entry
	metadata := wrap(0x0a, entry)
	out := wrap(0x0a, []byte("evil"))
	// Cluster.metadata is field 25.
	out = append(out, 0xca, 0x01)
	return append(append(out, varint(len(metadata))...), metadata...)
}

func varint(n int) []byte {
	var out []byte
	for n >= 0x80 {
		out = append(out, byte(n)|0x80)
		n >>= 7
	}
	return append(out, byte(n))
}

// unasked: resources nobody subscribed to are no reason to refuse, and are not applied.
func unasked(s *site) {
	survives(s, func(xds *plane.Script, proxy *kit.Proxy) {
		nonce := xds.Push(plane.EndpointType, plane.EndpointType, "more",
			append(xds.Wire(plane.EndpointType, "more"), endpoints("nobody-asked", 1).Wire("more"))...)
		xds.Accepted(s.T, nonce, "endpoints of a cluster the proxy does not have")
		nonce = xds.Push(plane.RouteType, plane.RouteType, "more",
			append(xds.Wire(plane.RouteType, "more"), routes("nobody-asked", "back", "x").Wire("more"))...)
		xds.Accepted(s.T, nonce, "routes no listener names")
		s.still(200*time.Millisecond, "alive", func() error { _, _, err := proxy.Get("/ready"); return err })
	})
}
