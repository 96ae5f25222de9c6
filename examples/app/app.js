// Lists the resources of the page, with their lengths as they were sent and after decoding.
const list = document.getElementById("codings");

function show(resource) {
    const item = document.createElement("li");
    const name = new URL(resource.name).pathname;
    item.textContent = `${name}: ${resource.encodedBodySize} bytes, ${resource.decodedBodySize} decoded`;
    list.append(item);
}

window.addEventListener("load", () => {
    for (const resource of performance.getEntriesByType("resource")) {
        show(resource);
    }
});
