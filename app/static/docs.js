// Starts Swagger UI on the document that the page names.
"use strict";

const root = document.getElementById("swagger-ui");
window.ui = SwaggerUIBundle({
  url: root.dataset.openapi,
  domNode: root,
  deepLinking: true,
  validatorUrl: null, // its default sends the document to a validator on another host
  presets: [SwaggerUIBundle.presets.apis],
});
